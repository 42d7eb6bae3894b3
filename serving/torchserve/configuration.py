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
OURS = frozenset(
    [
        "model_store",
        "load_models",
        "models",
        "inference_address",
        "management_address",
        "metrics_address",
        "grpc_inference_address",
        "grpc_management_address",
        "grpc_inference_port",
        "grpc_management_port",
        "model_server_home",
        "workflow_store",
        "model_snapshot",
        "default_service_handler",
        "service_envelope",
        "default_workers_per_model",
        "default_response_timeout",
        "default_startup_timeout",
        "job_queue_size",
        "version",
    ]
)

# Every other key TorchServe 0.12.0 reads (its ConfigManager); it ignores misspelt ones, we do not.
TORCHSERVES = frozenset(
    [
        "debug",
        "blacklist_env_vars",
        "unregister_model_timeout",
        "number_of_netty_threads",
        "netty_client_threads",
        "number_of_gpu",
        "metrics_config",
        "metrics_mode",
        "model_metrics_auto_detect",
        "disable_system_metrics",
        "ipex_enable",
        "cpu_launcher_enable",
        "cpu_launcher_args",
        "ipex_gpu_enable",
        "async_logging",
        "cors_allowed_origin",
        "cors_allowed_methods",
        "cors_allowed_headers",
        "decode_input_request",
        "keystore",
        "keystore_pass",
        "keystore_type",
        "certificate_file",
        "private_key_file",
        "max_request_size",
        "max_response_size",
        "limit_max_image_pixels",
        "prefer_direct_buffer",
        "allowed_urls",
        "install_py_dep_per_model",
        "enable_metrics_api",
        "grpc_inference_max_connection_age_ms",
        "grpc_management_max_connection_age_ms",
        "grpc_inference_max_connection_age_grace_ms",
        "grpc_management_max_connection_age_grace_ms",
        "enable_grpc_ssl",
        "initial_worker_port",
        "initial_distribution_port",
        "cpp_log_config",
        "ts_open_inference_protocol",
        "token_expiration_min",
        "ts_header_key_sequence_id",
        "ts_header_key_sequence_start",
        "ts_header_key_sequence_end",
        "disable_token_authorization",
        "enable_model_api",
        "use_native_io",
        "io_ratio",
        "metric_time_interval",
        "enable_envvars_config",
        "system_metrics_cmd",
        "use_env_allowed_urls",
        "vmargs",
        "plugins_path",
    ]
)


@dataclass(frozen=True)
class Addresses:
    """Where the server listens. Only inference ever leaves the machine."""

    host: str
    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int

    @property
    def url(self) -> str:
        """Of the inference API, as this machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"http://{host}:{self.inference}"

    @property
    def management_url(self) -> str:
        """Of the management API."""
        return f"http://127.0.0.1:{self.management}"

    @property
    def metrics_url(self) -> str:
        """Of the metrics API."""
        return f"http://127.0.0.1:{self.metrics}/metrics"


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
            if key in OURS:
                raise LaunchError(
                    f"{place}: {key} is set by polyhead serve: remove the line, and see polyhead serve --help"
                )
            target = settings if key.startswith(PREFIX) else properties
            name = key.removeprefix(PREFIX)
            if key not in TORCHSERVES and not (target is settings and name in Settings.model_fields):
                raise LaunchError(f"{place}: {key!r} is no key of TorchServe 0.12 or Polyhead: check its spelling")
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

    def java_arguments(self) -> list[str]:
        """What `vmargs` asks of the Java machine."""
        return self.properties.get("vmargs", "").split()

    def render(self, addresses: Addresses, model_store: Path, models: list[str]) -> str:
        """The effective file."""
        effective = {key: value for key, value in self.properties.items() if key != "vmargs"} | {
            "inference_address": f"http://{addresses.host}:{addresses.inference}",
            "management_address": f"http://127.0.0.1:{addresses.management}",
            "metrics_address": f"http://127.0.0.1:{addresses.metrics}",
            "grpc_inference_address": "127.0.0.1",
            "grpc_management_address": "127.0.0.1",
            "grpc_inference_port": str(addresses.grpc_inference),
            "grpc_management_port": str(addresses.grpc_management),
            "model_store": str(model_store),
            "load_models": ",".join(models),
        }
        return "".join(f"{key}={value}\n" for key, value in effective.items())
