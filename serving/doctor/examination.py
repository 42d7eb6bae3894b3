"""Everything that is looked at, in the order in which it is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from polyhead.serving.bundle import Bundle
from polyhead.serving.doctor import configured, device, endpoint, frontdoor, listening, machine, software
from polyhead.serving.doctor.finding import Finding, good, looked

__all__ = ["examine"]


def examine(bundles: Sequence[Path], config: Path | None, url: str | None, port: int) -> Iterator[Finding]:
    """Look at the installation, the machine, the configuration, bundles and a running server.

    Args:
        bundles: folders of bundles; each one's golden samples are replayed.
        config: a config.properties; Polyhead's own where left out.
        url: of a running server.
        port: that inference is to listen on.
    """
    for look in (software.python, software.packages, software.torch, software.torchserve, software.java):
        yield from looked(look.__name__, look)
    read: list[configured.Configured] = []
    yield from looked("configuration", partial(_configuration, config, read))
    found = read[0] if read else configured.configuration(None)
    settings = found.settings
    yield from looked("fast path", partial(software.fast_path, settings.fast_path))
    yield from looked("front door", partial(frontdoor.front_door, found.front))
    yield from looked("onnxruntime", partial(software.onnxruntime, _has_gpu()))
    yield from looked("device", partial(device.findings, settings))
    opened: list[Bundle] = []
    for folder in bundles:
        bundle, finding = configured.whole(folder)
        yield finding
        if bundle is not None:
            opened.append(bundle)
            yield from looked("golden", partial(configured.proven, bundle, settings))
    size = configured.bundle_bytes(opened)
    yield from looked("cores", partial(machine.cores, settings, len(opened)))
    yield from looked("memory", partial(machine.memory, found.file.java_arguments(), settings, size))
    for look in (machine.descriptors, machine.processes, machine.temporary):
        yield from looked(look.__name__, look)
    yield from looked("ports", partial(listening.ports, port, url is not None))
    if url is not None:
        yield from looked("server", partial(endpoint.endpoint, url))


def _configuration(path: Path | None, into: list[configured.Configured]) -> Iterator[Finding]:
    into.append(configured.configuration(path))
    file = into[0].file
    keys = sum(len(group) for group in (file.properties, file.settings, file.service, file.front))
    yield good("configuration", f"{path or 'the one in the package'}: {keys} keys, all known")


def _has_gpu() -> bool:
    try:
        found = device.gpus()
    except OSError:
        return False
    return found is not None and bool(found[2])
