"""How many replicas of a model there are to be, and what each is given."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError

from polyhead.models.spec import Strict, first_fault
from polyhead.serving.cores import available_cores
from polyhead.serving.errors import LaunchError
from polyhead.serving.settings import Settings

__all__ = ["PREFIX", "Scaling"]

PREFIX = "ray_"  # after `polyhead_`: the keys in config.properties

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0)]


class Scaling(Strict):
    """Replicas of every model version.

    Attributes:
        replicas: a fixed number; `workers` of the settings where neither this nor `max_replicas` is given.
        min_replicas, max_replicas: Ray chooses a number between them, by the requests under way.
        target_requests: that a replica is to have under way, those that wait for it counted; `max_batch_size` of the
            settings where None.
        look_back: seconds of load that a choice rests on.
        upscale_delay, downscale_delay: seconds that a load must last before replicas are added, or taken away.
    """

    replicas: Count | None = None
    min_replicas: Count = 1
    max_replicas: Count | None = None
    target_requests: Annotated[float, Field(gt=0)] | None = None
    look_back: Annotated[float, Field(gt=0)] = 30.0
    upscale_delay: Seconds = 10.0
    downscale_delay: Seconds = 300.0

    @classmethod
    def parse(cls, values: dict[str, Any], source: str) -> Scaling:
        """Read it from plain data, entries of None left out.

        Raises:
            LaunchError: a key is unknown, a value impossible, or two contradict each other.
        """
        given = {key: value for key, value in values.items() if value is not None}
        try:
            made = cls.model_validate(given)
        except ValidationError as error:
            raise LaunchError(f"{source}: {first_fault(error, given)}") from None
        if made.replicas is not None and made.max_replicas is not None:
            raise LaunchError(f"{source}: replicas fixes the number, max_replicas lets Ray choose it: give one of them")
        if made.max_replicas is None and "min_replicas" in given:
            raise LaunchError(f"{source}: min_replicas={made.min_replicas} is for autoscaling: give max_replicas too")
        if made.max_replicas is not None and made.max_replicas < made.min_replicas:
            raise LaunchError(
                f"{source}: max_replicas={made.max_replicas} is below min_replicas={made.min_replicas}: raise it"
            )
        return made

    def most(self, settings: Settings) -> int:
        """Replicas of a model that there may be at once."""
        return self.max_replicas or self.replicas or settings.workers

    def replicas_at_first(self, settings: Settings) -> int:
        """Replicas of a model that there are when it starts."""
        return self.min_replicas if self.max_replicas is not None else self.most(settings)

    def threads(self, settings: Settings) -> int:
        """Threads of one replica's forward pass, and so the cores that Ray sets aside for it."""
        return settings.threads or max(1, available_cores() // self.most(settings))

    def options(self, settings: Settings) -> dict[str, Any]:
        """As Ray Serve's deployments take them."""
        if self.max_replicas is None:
            return {"num_replicas": self.most(settings)}
        return {
            "autoscaling_config": {
                "min_replicas": self.min_replicas,
                "max_replicas": self.max_replicas,
                "target_ongoing_requests": self.target_requests or settings.max_batch_size,
                "look_back_period_s": self.look_back,
                "upscale_delay_s": self.upscale_delay,
                "downscale_delay_s": self.downscale_delay,
            }
        }
