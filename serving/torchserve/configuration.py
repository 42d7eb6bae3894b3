"""TorchServe's configuration: the root's config.properties in, the effective one out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyhead.serving.errors import LaunchError
from polyhead.serving.frontdoor.settings import PREFIX as FRONT
from polyhead.serving.frontdoor.settings import FrontDoorSettings
from polyhead.serving.rayserve.scaling import PREFIX as RAY
from polyhead.serving.rayserve.scaling import Scaling
from polyhead.serving.settings import ServiceSettings, Settings

__all__ = ["DEFAULT_CONFIG", "Addresses", "Configuration"]

DEFAULT_CONFIG = Path(__file__).with_name("config.properties")  # in a checkout a link to the root's
PREFIX = "polyhead_"

# What `polyhead serve` decides itself: in a file they would be overwritten in silence, so they are refused.
_OURS = """
default_response_timeout default_service_handler default_startup_timeout default_workers_per_model
grpc_inference_address grpc_inference_port grpc_management_address grpc_management_port inference_address
job_queue_size load_models management_address metrics_address model_server_home model_snapshot model_store models
service_envelope version workflow_store
"""
OURS = frozenset(_OURS.split())

# TLS would need https addresses, which we do not render: its keys would be taken for encryption, and give none.
_TLS = """
certificate_file enable_grpc_ssl keystore keystore_pass keystore_type private_key_file
"""
TLS = frozenset(_TLS.split())

# Every other key TorchServe 0.12.0 reads (its ConfigManager); it ignores misspelt ones, we do not.
_TORCHSERVES = """
allowed_urls async_logging blacklist_env_vars cors_allowed_headers cors_allowed_methods cors_allowed_origin
cpp_log_config cpu_launcher_args cpu_launcher_enable debug decode_input_request disable_system_metrics
disable_token_authorization enable_envvars_config enable_metrics_api enable_model_api
grpc_inference_max_connection_age_grace_ms grpc_inference_max_connection_age_ms
grpc_management_max_connection_age_grace_ms grpc_management_max_connection_age_ms initial_distribution_port
initial_worker_port install_py_dep_per_model io_ratio ipex_enable ipex_gpu_enable limit_max_image_pixels
max_request_size max_response_size metric_time_interval metrics_config metrics_mode model_metrics_auto_detect
netty_client_threads number_of_gpu number_of_netty_threads plugins_path prefer_direct_buffer system_metrics_cmd
token_expiration_min ts_header_key_sequence_end ts_header_key_sequence_id ts_header_key_sequence_start
ts_open_inference_protocol unregister_model_timeout use_env_allowed_urls use_native_io vmargs
"""
TORCHSERVES = frozenset(_TORCHSERVES.split())

# Our keys: by group the names, and what stands before them.
FIELDS = {
    "settings": (frozenset(Settings.model_fields), ""),
    "service": (frozenset(ServiceSettings.model_fields), ""),
    "front": (frozenset(FrontDoorSettings.model_fields), FRONT),
    "ray": (frozenset(Scaling.model_fields), RAY),
}

# TorchServe runs in a folder of its own, where a relative path would lead nowhere.
PATHS = frozenset(["metrics_config", "cpp_log_config", "plugins_path"])


@dataclass(frozen=True)
class Addresses:
    """Where the server listens. Only inference ever leaves the machine.

    Attributes:
        management: where we show what TorchServe's management API tells; the API itself listens on a socket's file.
        metrics: where the side server listens: metrics, health, metadata.
        torchserve_metrics: where TorchServe serves its own, which the side server fetches.
        behind: where TorchServe's inference listens if a front door has the port `inference`, on the loopback; else 0.
    """

    host: str
    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int
    torchserve_metrics: int
    behind: int = 0
    where = "management and metrics on loopback"

    @property
    def warning(self) -> str:
        """What an operator must know of an address that others reach; empty where there is nothing."""
        if self.behind or self.host in ("127.0.0.1", "localhost"):
            return ""
        return f"{self.host} is reachable from outside, and TorchServe gets no more fixes: use --front-door"

    @property
    def url(self) -> str:
        """Of the inference API, as this machine reaches it."""
        host = "127.0.0.1" if self.host == "0.0.0.0" else self.host  # noqa: S104 - compared, not bound
        return f"http://{host}:{self.inference}"

    @property
    def torchserve_host(self) -> str:
        """Where TorchServe's inference listens."""
        return "127.0.0.1" if self.behind else self.host

    @property
    def torchserve_port(self) -> int:
        """The port of TorchServe's inference, behind a front door or not."""
        return self.behind or self.inference

    @property
    def torchserve_url(self) -> str:
        """Of TorchServe's inference API, as this machine reaches it."""
        return f"http://127.0.0.1:{self.behind}" if self.behind else self.url

    @property
    def side_url(self) -> str:
        """Of the side server."""
        return f"http://127.0.0.1:{self.metrics}"

    @property
    def management_url(self) -> str:
        """Of the management API, to be read alone."""
        return f"http://127.0.0.1:{self.management}"

    @property
    def metrics_url(self) -> str:
        """Of the metrics API: Polyhead's families, and TorchServe's own behind them."""
        return f"http://127.0.0.1:{self.metrics}/metrics"

    @property
    def torchserve_metrics_url(self) -> str:
        """Of TorchServe's own metrics API, which nobody but the launcher is told of."""
        return f"http://127.0.0.1:{self.torchserve_metrics}/metrics"


@dataclass(frozen=True)
class Configuration:
    """A parsed config.properties."""

    properties: Mapping[str, str]  # TorchServe's
    settings: Mapping[str, str]  # of each model, without the prefix
    service: Mapping[str, str]  # of the server as a whole, likewise
    front: Mapping[str, str]  # of the front door, likewise
    ray: Mapping[str, str]  # of replicas on Ray, likewise

    @classmethod
    def load(cls, path: Path, over: Sequence[str] = ()) -> Configuration:
        """Read a file.

        Args:
            over: `key=value` each, in the place of the file's lines with the same keys.

        Raises:
            LaunchError: it cannot be read, or a key is unknown, ours to set, or there twice.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise LaunchError(f"{path}: cannot be read ({error})") from None
        lines = ((f"{path}, line {number}", line.strip()) for number, line in enumerate(text.splitlines(), start=1))
        found = _parsed((place, line) for place, line in lines if line and line[0] not in "#!")
        for group, values in _parsed(("--set", line.strip()) for line in over).items():
            found[group] |= values
        return cls(**found)

    def settings_with(self, overrides: Mapping[str, Any], source: str) -> Settings:
        """Our settings, the command line's over the file's.

        Raises:
            LaunchError: a value is impossible.
        """
        return Settings.parse({**self.settings, **_given(overrides)}, source)

    def service_with(self, overrides: Mapping[str, Any], source: str) -> ServiceSettings:
        """The settings of the server as a whole, the command line's over the file's.

        Raises:
            LaunchError: a value is impossible.
        """
        return ServiceSettings.parse({**self.service, **_given(overrides)}, source)

    def front_with(self, overrides: Mapping[str, Any], source: str) -> FrontDoorSettings:
        """The front door's settings, the command line's over the file's.

        Raises:
            LaunchError: a value is impossible.
        """
        return FrontDoorSettings.parse({**self.front, **_given(overrides)}, source)

    def ray_with(self, overrides: Mapping[str, Any], source: str) -> Scaling:
        """How many replicas there are on Ray, the command line's over the file's.

        Raises:
            LaunchError: a value is impossible.
        """
        return Scaling.parse({**self.ray, **_given(overrides)}, source)

    @property
    def may_deploy(self) -> bool:
        """Whether models may be added and removed while the server runs."""
        return self.properties.get("enable_model_api", "false") == "true"

    @property
    def max_request_size(self) -> int:
        """Bytes that TorchServe takes as a request's body.

        Raises:
            LaunchError: it is no number.
        """
        return self._bytes("max_request_size")

    @property
    def max_response_size(self) -> int:
        """Bytes that TorchServe takes from a worker for one batch.

        Raises:
            LaunchError: it is no number.
        """
        return self._bytes("max_response_size")

    def _bytes(self, key: str) -> int:
        value = self.properties.get(key, "6553500")  # TorchServe's default of both
        if not value.isdecimal():
            raise LaunchError(f"{key}={value}: give a number of bytes")
        return int(value)

    def java_arguments(self) -> list[str]:
        """What `vmargs` asks of the Java machine."""
        return self.properties.get("vmargs", "").split()

    def render(self, addresses: Addresses, management: Path, model_store: Path, models: list[str]) -> str:
        """The effective file.

        Args:
            management: the socket of the management API. Whoever reaches that API can have code of this machine run, so
                it listens where nobody but this user does, and no browser.
            models: folders of the model store; of each model the version that comes first is its default.
        """
        effective = {key: value for key, value in self.properties.items() if key != "vmargs"} | {
            "inference_address": f"http://{addresses.torchserve_host}:{addresses.torchserve_port}",
            "management_address": f"unix:{management}",
            "metrics_address": f"http://127.0.0.1:{addresses.torchserve_metrics}",
            "grpc_inference_address": "127.0.0.1",
            "grpc_management_address": "127.0.0.1",
            "grpc_inference_port": str(addresses.grpc_inference),
            "grpc_management_port": str(addresses.grpc_management),
            "model_store": str(model_store),
            "load_models": ",".join(models),
        }
        return "".join(f"{key}={value}\n" for key, value in effective.items())


def _parsed(lines: Iterable[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """By group the keys and values of lines, each after the place where it stands."""
    found: dict[str, dict[str, str]] = {group: {} for group in ("properties", *FIELDS)}
    for place, line in lines:
        key, separator, value = (part.strip() for part in line.partition("="))
        if not separator:
            raise LaunchError(f"{place}: {line!r:.60} is no key=value")
        group, name = _group(key)
        wrong = _fault(key, value, known=group != "properties")
        if wrong is not None:
            raise LaunchError(f"{place}: {wrong}")
        if name in found[group]:
            raise LaunchError(f"{place}: {key} stands twice")
        found[group][name] = value
    return found


def _group(key: str) -> tuple[str, str]:
    """Whose a key is, and its name there; a key that begins with our prefix and is none of ours stays TorchServe's."""
    name = key.removeprefix(PREFIX)
    if name != key:
        for group, (fields, prefix) in FIELDS.items():
            if name.startswith(prefix) and name.removeprefix(prefix) in fields:
                return group, name.removeprefix(prefix)
    return "properties", key


def _given(overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in overrides.items() if value is not None}


def _fault(key: str, value: str, known: bool) -> str | None:
    """What is wrong with a line, in words; None where nothing is. `known`: the key is one of our settings."""
    if key in OURS:
        return f"{key} is set by polyhead serve: remove the line, and see polyhead serve --help"
    if key in TLS:
        return f"{key} would be without effect: terminate TLS in the proxy in front, and remove the line"
    if key not in TORCHSERVES and not known:
        return f"{key!r} is no key of TorchServe 0.12 or Polyhead: check its spelling"
    if key in PATHS and not Path(value).is_absolute():
        return f"{key}={value}: give an absolute path"
    return None
