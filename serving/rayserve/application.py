"""What is deployed on Ray Serve: an application per model version, and one that speaks HTTP before them.

They are several, so that they can be taken away in order: HTTP first, which lets go of its last request only when that
was answered, then the models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ray import serve
from ray.serve import Application

from polyhead.serving.bundle import Bundle
from polyhead.serving.rayserve.ingress import Ingress
from polyhead.serving.rayserve.replica import MODEL, Replica
from polyhead.serving.rayserve.scaling import Scaling
from polyhead.serving.settings import Settings

__all__ = ["HTTP", "MODEL", "Placing", "application_name", "http_application", "model_application"]

HTTP = "http"
HEALTH_PERIOD, HEALTH_TIMEOUT = 10.0, 60.0  # seconds; a check waits for the batch in hand
# Of requests that the HTTP side holds at a time. What a model may have waiting is bounded by the model's own queue, and
# the bytes of all of them by bodies.py.
HTTP_REQUESTS = 100_000


@dataclass(frozen=True)
class Placing:
    """Where replicas run and what they are given.

    Attributes:
        gpu: each gets a GPU.
        folder: of the launcher, where all of them run on its machine.
        drain: seconds that a replica has for the requests it took.
    """

    gpu: bool
    folder: str | None
    drain: float


def application_name(bundle: Bundle) -> str:
    """Of one model version, for Ray, where `/` and `#` have meanings of their own."""
    return f"polyhead-{bundle.spec.name}--{bundle.spec.version}"


def model_application(bundle: Bundle, settings: Settings, scaling: Scaling, placing: Placing) -> Application:
    """One model version."""
    threads = scaling.threads(settings)
    deployment = serve.deployment(name=MODEL)(Replica).options(
        # A batch in the forward pass and the next one, which fills meanwhile; the others wait at the HTTP side.
        max_ongoing_requests=2 * settings.max_batch_size,
        max_queued_requests=settings.job_queue_size,
        ray_actor_options={"num_cpus": 0 if placing.gpu else threads, "num_gpus": int(placing.gpu)},
        health_check_period_s=HEALTH_PERIOD,
        health_check_timeout_s=HEALTH_TIMEOUT,
        graceful_shutdown_timeout_s=placing.drain,
        graceful_shutdown_wait_loop_s=0.1,
        **scaling.options(settings),
    )
    bound: Application = deployment.bind(
        bundle=str(bundle.folder.resolve()),
        digest=bundle.digest,
        settings=settings.model_dump(mode="json"),
        device="cuda:0" if placing.gpu else "cpu",  # of what Ray shows it
        threads=threads,
        folder=placing.folder,
    )
    return bound


def http_application(
    bundles: Sequence[Bundle], drain: float, site: tuple[str, str], max_body_bytes: int, seconds: float
) -> Application:
    """The HTTP side of all models.

    Args:
        bundles: of each name the one that comes first is the default.
        drain: seconds that it has for the requests it took.
        site: name and namespace of the actor that tells about the models.
        max_body_bytes: of a request.
        seconds: that a model has for an answer.
    """
    deployment = serve.deployment(name=HTTP)(Ingress).options(
        max_ongoing_requests=HTTP_REQUESTS,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=drain,
        graceful_shutdown_wait_loop_s=0.1,
    )
    models = [(bundle.spec.name, bundle.spec.version, application_name(bundle)) for bundle in bundles]
    bound: Application = deployment.bind(models=models, site=site, max_body_bytes=max_body_bytes, seconds=seconds)
    return bound
