"""How a model is served: one frozen, typed object; unknown keys are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from polyhead.models.spec import Strict, first_fault
from polyhead.serving.cores import available_cores
from polyhead.serving.errors import LaunchError

__all__ = [
    "Count",
    "Device",
    "LogFormat",
    "PrecisionChoice",
    "RuntimeChoice",
    "ServiceSettings",
    "Settings",
    "available_cores",
]

RuntimeChoice = Literal["auto", "onnxruntime", "torchscript", "program", "aotinductor"]
PrecisionChoice = Literal["auto", "fp32", "fp16", "bf16", "int8"]
LogFormat = Literal["text", "json"]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
Count = Annotated[int, Field(ge=1)]
TITLES = r"^([A-Za-z0-9._-]+/[A-Za-z0-9._-]+(,[A-Za-z0-9._-]+/[A-Za-z0-9._-]+)*)?$"


class Settings(Strict):
    """Settings of one served model, as `polyhead_<name>` in config.properties or `--<name>` on the command line."""

    runtime: RuntimeChoice = "auto"
    precision: PrecisionChoice = "auto"  # of the graph; auto: what polyhead bench found fastest, else fp32
    device: Device = "auto"
    workers: Count = 1  # processes per model; each holds the whole model
    threads: Annotated[int, Field(ge=0)] = 0  # of one forward pass; 0: cores / workers
    max_batch_size: Count = 64  # requests that one forward pass may answer
    # Milliseconds that a batch waits for more requests; TorchServe knows whole ones, and takes 0 for 100.
    max_batch_delay: Count = 1
    job_queue_size: Count = 1000  # requests that wait before new ones are refused with 503
    response_timeout: Count = 60  # seconds until a batch in flight counts as hung
    startup_timeout: Count = 300  # seconds that a worker may take to load its model
    max_rows: Count = 10_000  # rows in one request
    max_rows_per_forward: Count = 1024  # more rows than this are run in several passes, to bound memory
    max_tokens_per_forward: Count = 65_536  # texts of more than this, padding counted, are run in several passes
    max_image_pixels: Count = 50_000_000  # of all images of a request, before resizing
    max_dense_bytes: Count = 256 * 1024 * 1024  # of outputs per token or pixel, of a request and of what runs together
    max_input_bytes: Count = 64 * 1024 * 1024  # of all rows of a request, as the graph takes them
    max_body_bytes: Count = 64 * 1024 * 1024  # of a request's body after it was inflated
    decode_threads: Annotated[int, Field(ge=0)] = 0  # that tokenise and read images beside the forward pass; 0: auto
    # Heads that run on the rows that ask for them alone: auto (measured when a model is loaded), none, or their names.
    apart: Annotated[str, Field(pattern=r"^[^,\s][^,]*(,[^,]+)*$")] = "auto"
    fast_path: bool = True  # Polyhead's own reading and writing of what passes between TorchServe and a worker
    log_format: LogFormat = "text"
    access_log: bool = False  # one line per request

    @classmethod
    def parse(cls, values: dict[str, Any], source: str) -> Self:
        """Read settings from plain data.

        Raises:
            LaunchError: a key is unknown or a value impossible.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise LaunchError(f"{source}: {first_fault(error, values)}") from None

    def threads_per_worker(self) -> int:
        """Threads of one forward pass."""
        return self.threads or max(1, available_cores() // self.workers)


class ServiceSettings(Strict):
    """Settings of the server as a whole, under the same prefix: when it calls itself ready, and how it stops."""

    # Seconds between two golden samples of each model. One that has not answered for three of these is not ready.
    probe_interval: Annotated[float, Field(ge=0.1)] = 5.0
    drain_delay: Annotated[float, Field(ge=0)] = 0.0  # seconds between "not ready" and the first refusal, at a stop
    drain_timeout: Annotated[float, Field(gt=0)] = 25.0  # seconds that a stop may take in all
    # Versions, `name/version`, that answer requests without one from the start; of other models the highest does.
    defaults: Annotated[str, Field(pattern=TITLES)] = ""

    @classmethod
    def parse(cls, values: dict[str, Any], source: str) -> Self:
        """Read settings from plain data.

        Raises:
            LaunchError: a key is unknown or a value impossible.
        """
        try:
            found = cls.model_validate(values)
        except ValidationError as error:
            raise LaunchError(f"{source}: {first_fault(error, values)}") from None
        if found.drain_delay >= found.drain_timeout:
            raise LaunchError(
                f"{source}: drain_delay {found.drain_delay:g} s leaves nothing of drain_timeout "
                f"{found.drain_timeout:g} s: make the first shorter, or the second longer"
            )
        return found

    @property
    def default_titles(self) -> list[str]:
        """The versions of `defaults`."""
        return self.defaults.split(",") if self.defaults else []
