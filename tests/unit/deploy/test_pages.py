"""The pages for operators: every command, flag, key and metric that they name is there."""

from __future__ import annotations

import functools
import re
import shlex
from typing import Any

import pytest
import typer

from polyhead.cli.main import app
from polyhead.serving.frontdoor.settings import PREFIX as FRONT
from polyhead.serving.frontdoor.settings import FrontDoorSettings
from polyhead.serving.metrics.families import FAMILIES
from polyhead.serving.settings import ServiceSettings, Settings
from tests.command import ROOT
from tests.unit.deploy.queries import named, of_dashboard, of_rules

PAGES = ("docs/operations.md", "docs/migrating.md", "deploy/README.md", "deploy/systemd/polyhead.service")
# At a line's beginning or as code, by its path, or as what a container runs: not `kubectl --namespace polyhead …`.
COMMAND = re.compile(r"(?:^|`|/|-- |exec server |=)polyhead ([a-z][^`\n#&|]*)", re.M)


def text(page: str) -> str:
    return (ROOT / page).read_text()


@functools.cache
def program() -> Any:
    return typer.main.get_command(app)


def code(page: str) -> str:
    if not page.endswith(".md"):
        return text(page)
    return "\n".join([*re.findall(r"```sh\n(.*?)```", text(page), re.S), *re.findall(r"(`[^`\n]+`)", text(page))])


def commands(page: str) -> list[list[str]]:
    """What stands behind `polyhead`, split into words."""
    return [shlex.split(found, comments=True) for found in COMMAND.findall(code(page))]


def test_commands_are_found_where_they_stand():
    verbs = {page: {words[0] for words in commands(page)} for page in PAGES}
    assert {"doctor", "bench", "deploy", "verify", "inspect", "serve"} <= verbs["docs/operations.md"]
    assert {"package", "serve", "score"} <= verbs["docs/migrating.md"]
    assert verbs["deploy/systemd/polyhead.service"] == {"serve"}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_flag_is_there(page):
    for words in commands(page):
        found, path = program(), []
        while hasattr(found, "commands") and len(path) < len(words):
            path.append("table" if path == ["score"] and words[1] not in found.commands else words[len(path)])
            assert path[-1] in found.commands, f"{page}: there is no polyhead {' '.join(path)}"
            found = found.commands[path[-1]]
        known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert flag in known, f"{page}: polyhead {' '.join(path)} has no {flag}"


@pytest.mark.parametrize("page", PAGES)
def test_every_key_and_metric_is_there(page):
    keys = {
        *Settings.model_fields,
        *ServiceSettings.model_fields,
        *(FRONT + name for name in FrontDoorSettings.model_fields),
    }
    metrics = {name for _, query in [*of_rules(), *of_dashboard()] for name in named(query)} | set(FAMILIES)
    metrics |= {f"{name}_total" for name in FAMILIES}
    for name in re.findall(r"(?<![:\w])polyhead_\w+", text(page)):
        assert name.removeprefix("polyhead_") in keys or name in metrics, f"{page}: {name}"
    for name in re.findall(r"\w+:polyhead_\w+:\w+", text(page)):
        assert name in {rule for rule, _ in of_rules()}, f"{page}: {name}"
    alerts = {rule for rule, _ in of_rules() if ":" not in rule}
    for name in re.findall(r"\bPolyhead[A-Z]\w+", text(page)):
        assert name in alerts, f"{page}: {name}"
