"""A path of the side server, to what it answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Protocol

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from polyhead.serving.console.assets import asset
from polyhead.serving.settings import Settings
from polyhead.serving.side.document import document
from polyhead.serving.side.exchange import Asked, MethodNotAllowed, NotFound, Reply, Unavailable, json_reply
from polyhead.serving.side.metadata import server_metadata
from polyhead.serving.side.prober import Health
from polyhead.serving.side.roster import Entry, Roster

__all__ = ["Answer", "Routes", "Site"]

READ = ("GET", "HEAD")
NAME, VERSION = r"(?P<name>[A-Za-z0-9._-]+)", r"(?P<version>[A-Za-z0-9._-]+)"
Answer = Callable[[Asked, Mapping[str, str]], Reply]


class Site(Protocol):
    """The server that is told of."""

    @property
    def roster(self) -> Roster:
        """What is served."""

    @property
    def settings(self) -> Settings:
        """Of every model."""

    def alive(self) -> bool:
        """Whether TorchServe runs."""

    def health(self) -> Health:
        """What is known of every model."""

    def metrics(self) -> bytes:
        """The page for Prometheus."""


class Routes:
    """Answers what is asked of one server.

    Args:
        site: that is told of.
        console: whether there is a page for people.
        more: further answers, by a path's expression: methods and what answers them.
    """

    def __init__(self, site: Site, console: bool, more: Mapping[str, tuple[tuple[str, ...], Answer]]) -> None:
        self._site = site
        self._kept: tuple[list[tuple[str, str, bool]], Reply] | None = None  # the document, and what it tells of
        own: dict[str, tuple[tuple[str, ...], Answer]] = {
            "/metrics": (READ, self._metrics),
            "/v2/?": (READ, lambda *_: json_reply(server_metadata())),
            "/v2/health/live": (READ, self._live),
            "/v2/health/ready": (READ, self._ready),
            "/v2/models": (READ, self._models),
            rf"/v2/models/{NAME}(/versions/{VERSION})?": (READ, self._model),
            rf"/v2/models/{NAME}(/versions/{VERSION})?/ready": (READ, self._model_ready),
            r"/openapi\.json": (READ, self._document),
        }
        if console:
            own |= {"/|/docs|/console/.+": (READ, self._asset)}
        self._table = [(re.compile(path), methods, answer) for path, (methods, answer) in (own | dict(more)).items()]

    def __call__(self, asked: Asked) -> Reply:
        """The answer to a request.

        Raises:
            RequestError: there is none; see `exchange.refusal`.
        """
        for path, methods, answer in self._table:
            found = path.fullmatch(asked.path)
            if found is None:
                continue
            if asked.method not in methods:
                raise MethodNotAllowed(f"{asked.path} knows {' and '.join(methods)}, got {asked.method}", methods)
            return answer(asked, found.groupdict())
        raise NotFound(f"there is nothing at {asked.path:.200}: /openapi.json tells what there is")

    def _metrics(self, *_: object) -> Reply:
        return Reply(200, self._site.metrics(), CONTENT_TYPE_PLAIN_0_0_4)

    def _live(self, *_: object) -> Reply:
        alive = self._site.alive()
        return json_reply({"live": alive}, 200 if alive else Unavailable.status)

    def _ready(self, *_: object) -> Reply:
        health = self._site.health()
        models = [
            {
                "name": model.name,
                "version": model.version,
                "ready": model.ready,
                "seconds_since_answer": None if model.age is None else round(model.age, 3),
                "fault": model.fault,
            }
            for model in health.models
        ]
        state = "starting" if health.starting else "draining" if health.draining else "serving"
        content = {"ready": health.ready, "state": state, "models": models}
        return json_reply(content, 200 if health.ready else Unavailable.status)

    def _models(self, *_: object) -> Reply:
        ready = {(model.name, model.version): model.ready for model in self._site.health().models}
        models = [
            {
                "name": entry.name,
                "version": entry.version,
                "default": entry.default,
                "previous": entry.previous,
                "state": "leaving" if entry.leaving else "serving",
                "ready": ready.get((entry.name, entry.version), False),
                "bundle": entry.bundle.digest[:12],
                "heads": {name: head.kind for name, head in entry.bundle.spec.heads.items()},
            }
            for entry in self._site.roster.entries()
        ]
        return json_reply({"models": models})

    def _entry(self, names: Mapping[str, str]) -> Entry:
        name, version = names["name"], names.get("version")
        entry = self._site.roster.find(name, version)
        if entry is None:
            served = ", ".join(entry.bundle.title for entry in self._site.roster.entries())
            raise NotFound(
                f"model {name if version is None else f'{name}/{version}'} is not served here: there are {served}"
            )
        return entry

    def _model(self, _: Asked, names: Mapping[str, str]) -> Reply:
        entry = self._entry(names)
        versions = [other.version for other in self._site.roster.entries(entry.name)]
        return json_reply(entry.description.metadata(entry.name, versions))

    def _model_ready(self, _: Asked, names: Mapping[str, str]) -> Reply:
        entry = self._entry(names)
        health = self._site.health()
        ready = any((m.name, m.version, m.ready) == (entry.name, entry.version, True) for m in health.models)
        ready = ready and not health.draining
        content = {"name": entry.name, "version": entry.version, "ready": ready}
        return json_reply(content, 200 if ready else Unavailable.status)

    def _document(self, *_: object) -> Reply:
        entries = self._site.roster.entries()
        state = [(entry.bundle.title, entry.bundle.digest, entry.default) for entry in entries]
        kept = self._kept
        if kept is None or kept[0] != state:  # what is asked by anybody must cost little
            kept = self._kept = (state, json_reply(document(entries, self._site.settings)))
        return kept[1]

    def _asset(self, asked: Asked, _: Mapping[str, str]) -> Reply:
        found = asset(asked.path)
        if found is None:
            raise NotFound(f"there is nothing at {asked.path:.200}")
        if asked.headers.get("if-none-match") == found.etag:
            return Reply(304, b"", found.content_type, found.headers)
        return Reply(200, found.body, found.content_type, found.headers)
