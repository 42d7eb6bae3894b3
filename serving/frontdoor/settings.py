"""How the front door is set up: `polyhead_front_<name>` in config.properties; unknown keys are refused."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from polyhead.models.spec import Strict, first_fault
from polyhead.serving.errors import LaunchError

__all__ = ["PREFIX", "PRIVATE", "FrontDoorSettings", "listed"]

PREFIX = "front_"  # after `polyhead_`: the keys that are the front door's
# Who reads metrics where nobody said otherwise: the loopback and the private networks of RFC 1918 and RFC 4193.
PRIVATE = "127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,::1,fc00::/7"

Seconds = Annotated[int, Field(ge=1, le=86_400)]
Number = Annotated[int, Field(ge=0)]  # 0: no limit
Count = Annotated[int, Field(ge=1)]


class FrontDoorSettings(Strict):
    """Settings of the front door. Files may be given relative to where the server is started."""

    door: bool = False  # whether there is one
    tls_certificate: str = ""  # PEM, the certificate first, then those between it and the root
    tls_key: str = ""  # PEM, without a passphrase
    client_ca: str = ""  # PEM: clients must show a certificate that one of these signed
    client_crl: str = ""  # PEM: lists of certificates that were taken back, one of each authority in client_ca
    client_certificate: Literal["required", "optional"] = "required"  # optional: a key of api_keys does instead
    api_keys: str = ""  # a file, `name key` a line: requests must carry one of the keys
    trusted_proxies: str = ""  # networks of balancers whose X-Forwarded-For is believed, with commas between
    metrics_from: str = PRIVATE  # networks that may read /metrics
    console: bool = True  # whether the page at / is shown
    rate: Number = 0  # requests a second of one client: its key, else its certificate, else its address
    burst: Number = 0  # requests beyond the rate that are let through at once; 0: as many as the rate
    connections: Number = 128  # requests of one address that may be in the door at the same time
    in_flight: Number = 1024  # requests that TorchServe may have at the same time; more get 503 at once
    max_body_bytes: Count = 40 * 1024 * 1024  # of a request; TorchServe's max_request_size should not be less
    chunked: bool = True  # whether a body without Content-Length is taken
    max_header_bytes: Annotated[int, Field(ge=1024, le=1_048_576)] = 16_384  # of a request line, or of one header
    body_buffer_bytes: Annotated[int, Field(ge=1024)] = 262_144  # a longer body waits in the temporary directory
    header_timeout: Seconds = 10  # for the whole header
    body_timeout: Seconds = 10  # between two reads of the body
    send_timeout: Seconds = 30  # between two writes of the answer
    keepalive_timeout: Seconds = 75  # of a connection that asks nothing
    answer_timeout: Seconds = 75  # for TorchServe's answer; must be more than response_timeout
    retry_timeout: Number = 10  # a request that failed after so many seconds is not sent again; 0: none is
    workers: Number = 0  # nginx's processes; 0: one for each four cores
    max_connections: Annotated[int, Field(ge=64)] = 8192  # of one of them, TorchServe's included

    @field_validator("trusted_proxies", "metrics_from")
    @classmethod
    def _networks(cls, value: str) -> str:
        for network in listed(value):
            try:
                ip_network(network)
            except ValueError as error:
                raise ValueError(f"{error}: write networks as 10.0.0.0/8, with commas between") from None
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("tls_certificate and tls_key go together: give both or neither")
        if self.client_ca and not self.tls_certificate:
            raise ValueError("client_ca needs TLS: give tls_certificate and tls_key too")
        if self.client_crl and not self.client_ca:
            raise ValueError("client_crl without client_ca takes nothing back: give client_ca too")
        if self.client_ca and self.client_certificate == "optional" and not self.api_keys:
            raise ValueError("client_certificate=optional lets everybody in: give api_keys too, or say required")
        return self

    @classmethod
    def parse(cls, values: dict[str, Any], source: str) -> Self:
        """Read settings from plain data, by their names without the prefix.

        Raises:
            LaunchError: a key is unknown, a value impossible, or two do not go together.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise LaunchError(f"{source}: front door: {first_fault(error, values)}") from None

    def require_agreement(self, response_timeout: int, max_request_size: int) -> None:
        """See to it that what stands behind the door allows what the door does.

        Args:
            response_timeout: seconds that TorchServe gives a worker.
            max_request_size: bytes that TorchServe takes as a body.

        Raises:
            LaunchError: the door would give up first, or let through what TorchServe refuses in words of its own.
        """
        if self.answer_timeout <= response_timeout:
            raise LaunchError(
                f"polyhead_front_answer_timeout={self.answer_timeout} cuts off answers that "
                f"polyhead_response_timeout={response_timeout} allows: make it greater"
            )
        if self.max_body_bytes > max_request_size:
            raise LaunchError(
                f"polyhead_front_max_body_bytes={self.max_body_bytes} is more than TorchServe takes "
                f"(max_request_size={max_request_size}): lower it, or raise max_request_size"
            )

    @property
    def tls(self) -> bool:
        """Whether the door speaks HTTPS."""
        return bool(self.tls_certificate)

    @property
    def files(self) -> dict[str, Path]:
        """The files that are named, by key, absolute."""
        keys = ("tls_certificate", "tls_key", "client_ca", "client_crl", "api_keys")
        return {key: Path(value).absolute() for key in keys if (value := getattr(self, key))}


def listed(value: str) -> list[str]:
    """The parts of a list with commas."""
    return [part for each in value.split(",") if (part := each.strip())]
