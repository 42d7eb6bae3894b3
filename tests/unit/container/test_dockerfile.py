"""The Dockerfile, read as it stands: what CI can hold of it without building."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import tomllib

import pytest

from polyhead.serving.torchserve.configuration import Configuration
from tests.command import ROOT


def stages() -> dict[str, list[tuple[str, str]]]:
    """Each stage's instructions, by the stage's name; the last, which has none, is `default`."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    found: dict[str, list[tuple[str, str]]] = {"": []}
    name = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        verb, _, rest = line.partition(" ")
        if verb == "FROM":
            name = rest.split(" AS ")[1] if " AS " in rest else "default"
            found[name] = []
        found[name].append((verb, rest.strip()))
    return found


def chain(name: str) -> list[tuple[str, str]]:
    """A stage's instructions behind those of the stages it stands on."""
    found = stages()
    below = found[name][0][1].split(" AS ")[0]
    return (chain(below) if below in found else []) + found[name]


def sources(line: str) -> list[str]:
    return [part for part in shlex.split(line)[:-1] if not part.startswith("--")]


def test_there_is_a_stage_for_each_device_and_the_cpu_is_the_default():
    found = stages()
    assert {"cpu", "gpu"} <= found.keys()
    assert found["default"] == [("FROM", "cpu")]


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_stands_on_nothing_and_takes_files_from_other_stages_alone(target):
    steps = chain(target)
    assert steps[0] == ("FROM", "scratch AS server")
    assert "RUN" not in {verb for verb, _ in steps}  # there is no shell to run it in
    copied = [rest for verb, rest in steps if verb == "COPY"]
    assert [sources(line) for line in copied if "--from" not in line] == [["README.md"]]
    assert any(line == f"--from=application-{target} /opt/polyhead /opt/polyhead" for line in copied)


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_how_an_image_runs(target):
    steps = chain(target)
    said = dict(steps)
    assert steps[-1] == ("USER", "10001:10001")
    assert said["STOPSIGNAL"] == "SIGTERM"
    assert said["EXPOSE"] == "8080"
    assert json.loads(said["ENTRYPOINT"]) == ["polyhead", "serve"]
    command = json.loads(said["CMD"])
    assert "--front-door" in command
    assert command[command.index("--host") + 1] == "0.0.0.0"
    assert json.loads(said["HEALTHCHECK"].partition(" CMD ")[2])[0] == "python"


def test_the_front_door_stands_whatever_arguments_replace_the_command(tmp_path):
    """`docker run … /models --log-format json` names neither the door nor a file: the package's own file says it."""
    (step,) = [rest for verb, rest in stages()["wheel"] if verb == "RUN" and "polyhead_front_door" in rest]
    package = tmp_path / "serving/torchserve"
    package.mkdir(parents=True)
    for path in (tmp_path / "config.properties", package / "config.properties"):
        path.write_bytes((ROOT / "config.properties").read_bytes())
    subprocess.run(["sh", "-c", step], cwd=tmp_path, check=True)
    before = Configuration.load(ROOT / "config.properties")
    for path in (tmp_path / "config.properties", package / "config.properties"):
        configuration = Configuration.load(path)
        assert configuration.front_with({}, "image").door
        assert dataclasses.replace(configuration, front=before.front) == before  # nothing else is changed
    for target in ("cpu", "gpu"):
        line = "--from=wheel /src/config.properties /etc/polyhead/config.properties"
        assert ("COPY", line) in stages()[target]


def test_the_document_that_the_label_names_is_there():
    (label,) = [rest for verb, rest in stages()["server"] if verb == "LABEL"]
    (path,) = re.findall(r'image[.]documentation="([^"]+)"', label)
    for target in ("cpu", "gpu"):
        assert ("COPY", f"README.md {path}") in stages()[target]


def test_every_file_that_is_copied_is_there_and_let_in():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for name, steps in stages().items():
        for verb, rest in steps:
            if verb == "COPY" and "--from" not in rest:
                for source in sources(rest):
                    assert source in allowed, (name, source)
                    assert (ROOT / source).exists(), (name, source)
            assert verb != "ADD", "ADD fetches and unpacks: COPY says what it does"


def test_what_is_copied_from_a_stage_names_one_that_is_there():
    found = stages()
    for name, steps in found.items():
        for verb, rest in steps:
            for other in re.findall(r"--from=(\S+)", rest) if verb == "COPY" else []:
                assert other in found, (name, other)
                assert list(found).index(other) < list(found).index(name)


def test_the_two_environments_differ_in_the_device_alone():
    cpu, gpu = ([f"{verb} {rest}" for verb, rest in stages()[f"application-{target}"]] for target in ("cpu", "gpu"))
    assert [line.replace("none cpu", "gpu cuda").replace("cpu", "gpu") for line in cpu] == gpu


def test_packages_come_by_hash_alone():
    script = (ROOT / "requirements/install.sh").read_text()
    assert all("--require-hashes" in line for line in script.splitlines() if "pip" in line and " install " in line)
    for name, steps in stages().items():
        for verb, rest in steps:
            if verb == "RUN" and "pip install" in rest:
                assert "--no-index" in rest, name  # the wheel that was just built
                assert "--no-deps" in rest, name
    for path in (ROOT / "requirements").glob("*.lock"):
        text = path.read_text()
        for requirement in re.findall(r"^[a-z].*?(?=^[a-z]|\Z)", text, re.M | re.S):
            assert "--hash=sha256:" in requirement, f"{path.name}: {requirement[:60]}"


def test_no_secret_and_no_pip_setting_reaches_an_image():
    for target in ("cpu", "gpu"):
        for verb, rest in chain(target):
            assert verb not in ("ARG", "ENV") or not re.search(r"PIP_|TOKEN|SECRET|PASSWORD", rest), rest
    assert not re.search(r"https?://(?!download\.pytorch)", (ROOT / "Dockerfile").read_text())


def test_the_version_it_is_labelled_with_is_the_projects():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert ("ARG", f"VERSION={version}") in stages()["server"]
