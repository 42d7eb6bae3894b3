"""The files around a bundle that make it a TorchServe model: MANIFEST, handler, configuration.

`polyhead serve` writes them beside the bundle; `polyhead package --to mar` zips them with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from polyhead.models.spec import ModelSpec
from polyhead.serving.settings import Settings
from polyhead.serving.torchserve.handler import HANDLER_FILE, HANDLER_SOURCE
from polyhead.serving.torchserve.java import TORCHSERVE

__all__ = ["CONFIG_FILE", "model_files"]

CONFIG_FILE = "model-config.yaml"


def model_files(
    spec: ModelSpec, settings: Settings, bundle: str, device: str, launch: Mapping[str, Any] | None = None
) -> dict[str, bytes]:
    """Every file but the bundle, by its path in the archive.

    Args:
        spec: names model and version.
        settings: how it is served.
        bundle: the bundle's directory, absolute or relative to the archive.
        device: `cpu` keeps TorchServe from giving workers a GPU.
        launch: what the launcher tells its workers besides: `report` (where to write how loading went), `digest` (of
            the bundle it verified), `max_response_size`, `metrics` (the folder to count in), `busy` (the folder
            to say in that it answers).
    """
    ours = {"bundle": bundle, "settings": settings.model_dump(exclude_defaults=True), **(launch or {})}
    # TorchServe ignores what it does not know, and `minWorkers` where `maxWorkers` is missing.
    config: Mapping[str, Any] = {
        "minWorkers": settings.workers,
        "maxWorkers": settings.workers,
        "batchSize": settings.max_batch_size,
        "maxBatchDelay": settings.max_batch_delay,
        "responseTimeout": settings.response_timeout,
        "startupTimeout": settings.startup_timeout,
        "jobQueueSize": settings.job_queue_size,
        **({"deviceType": "cpu"} if device == "cpu" else {}),
        "polyhead": ours,
    }
    manifest = {
        "createdOn": "01/01/1970 00:00:00",  # the same bundle makes the same archive
        "runtime": "python",
        "archiverVersion": TORCHSERVE,
        "model": {
            "modelName": spec.name,
            "modelVersion": spec.version,
            "handler": HANDLER_FILE,
            "configFile": CONFIG_FILE,
        },
    }
    return {
        "MAR-INF/MANIFEST.json": json.dumps(manifest, indent=2).encode(),
        HANDLER_FILE: HANDLER_SOURCE.encode(),
        CONFIG_FILE: yaml.safe_dump(config, sort_keys=False).encode(),
    }
