"""TorchServe's configuration: the root's config.properties in, the effective one out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyhead.serving.errors import LaunchError
from polyhead.serving.settings import Settings

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

# TorchServe runs in a folder of its own, where a relative path would lead nowhere.
PATHS = frozenset(["metrics_config", "cpp_log_config", "plugins_path"])


@dataclass(frozen=True)
class Addresses:
    """Where the server listens. Only inference ever leaves the machine.

    Attributes:
        metrics: where the launcher serves metrics.
        torchserve_metrics: where TorchServe serves its own, which the launcher fetches.
    """

    host: str
    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int
    torchserve_metrics: int

    @property
    def url(self) -> str:
        """Of the inference API, as this machine reaches it."""
        host = "127.0.0.1" if self.host == "0.0.0.0" else self.host  # noqa: S104 - compared, not bound
        return f"http://{host}:{self.inference}"

    @property
    def management_url(self) -> str:
        """Of the management API."""
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
    settings: Mapping[str, str]  # ours, without the prefix

    @classmethod
    def load(cls, path: Path) -> Configuration:
        """Read a file.

        Raises:
            LaunchError: it cannot be read, or a key is unknown, ours to set, or there twice.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise LaunchError(f"{path}: cannot be read ({error})") from None
        properties: dict[str, str] = {}
        settings: dict[str, str] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            stripped = line.strip()
            if not stripped or stripped[0] in "#!":
                continue
            key, separator, value = (part.strip() for part in stripped.partition("="))
            place = f"{path}, line {number}"
            if not separator:
                raise LaunchError(f"{place}: {stripped!r:.60} is no key=value")
            target = settings if key.startswith(PREFIX) else properties
            name = key.removeprefix(PREFIX)
            wrong = _fault(key, value, known=target is settings and name in Settings.model_fields)
            if wrong is not None:
                raise LaunchError(f"{place}: {wrong}")
            if name in target:
                raise LaunchError(f"{place}: {key} stands twice")
            target[name] = value
        return cls(properties, settings)

    def settings_with(self, overrides: Mapping[str, Any], source: str) -> Settings:
        """Our settings, the command line's over the file's.

        Raises:
            LaunchError: a value is impossible.
        """
        given = {key: value for key, value in overrides.items() if value is not None}
        return Settings.parse({**self.settings, **given}, source)

    @property
    def max_response_size(self) -> int:
        """Bytes that TorchServe takes from a worker for one batch.

        Raises:
            LaunchError: it is no number.
        """
        value = self.properties.get("max_response_size", "6553500")  # TorchServe's default
        if not value.isdecimal():
            raise LaunchError(f"max_response_size={value}: give a number of bytes")
        return int(value)

    def java_arguments(self) -> list[str]:
        """What `vmargs` asks of the Java machine."""
        return self.properties.get("vmargs", "").split()

    def render(self, addresses: Addresses, model_store: Path, models: list[str]) -> str:
        """The effective file."""
        effective = {key: value for key, value in self.properties.items() if key != "vmargs"} | {
            "inference_address": f"http://{addresses.host}:{addresses.inference}",
            "management_address": f"http://127.0.0.1:{addresses.management}",
            "metrics_address": f"http://127.0.0.1:{addresses.torchserve_metrics}",
            "grpc_inference_address": "127.0.0.1",
            "grpc_management_address": "127.0.0.1",
            "grpc_inference_port": str(addresses.grpc_inference),
            "grpc_management_port": str(addresses.grpc_management),
            "model_store": str(model_store),
            "load_models": ",".join(models),
        }
        return "".join(f"{key}={value}\n" for key, value in effective.items())


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
