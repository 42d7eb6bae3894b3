"""The house itself: what is built is what stands in the tree, and the contract's imports hold."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.command import ROOT

PACKAGES = ("models", "export", "serving", "cli")


def tracked(*patterns: str) -> list[Path]:
    """Files of the working tree, as git knows them or would."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(line) for line in listed.stdout.splitlines()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    for path in tracked(*PACKAGES, "pyproject.toml", "setup.py", "README.md", "LICENSE", "config.properties"):
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes((ROOT / path).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(copy)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        return archive.namelist()


def test_the_wheel_holds_every_module_of_the_tree_and_nothing_generic(wheel):
    tree = {f"polyhead/{path}" for path in tracked(*(f"{package}/*.py" for package in PACKAGES))}
    built = {name for name in wheel if name.endswith(".py")}
    assert built == tree
    assert {name.split("/")[0] for name in wheel if ".dist-info" not in name} == {"polyhead"}


def test_the_wheel_holds_the_configuration_and_the_type_markers(wheel):
    wanted = {"config.properties", "log4j2.xml"}
    assert {f"polyhead/serving/torchserve/{name}" for name in wanted} <= set(wheel)
    assert {f"polyhead/{package}/py.typed" for package in PACKAGES} <= set(wheel)
    console = {f"polyhead/{path}" for path in tracked("serving/console") if path.suffix != ".py"}
    assert len(console) > 10
    assert console <= set(wheel)


def test_the_configuration_inside_the_package_is_the_roots():
    assert (ROOT / "serving/torchserve/config.properties").read_text() == (ROOT / "config.properties").read_text()


def test_set_up_again_does_nothing_in_under_two_seconds():
    command = ["make", "--no-print-directory", "setup"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=600)
    start = time.monotonic()
    again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    assert time.monotonic() - start < 2
    assert "install" not in again.stdout


@pytest.mark.parametrize("module", ["polyhead.models.spec", "polyhead.serving.bundle", "polyhead.cli.main"])
def test_the_light_parts_start_without_torch(module):
    code = f"import sys, {module}; print(sorted(set(sys.modules) & {{'torch', 'lightning', 'onnxruntime', 'onnx'}}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_dependency_has_a_bound_and_a_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in (entry for entries in lists for entry in entries if not entry.startswith("polyhead[")):
        assert re.search(r"[<=]", requirement), f"{requirement} has no upper bound"
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.findall(
        r'^  "(?!polyhead\[|Development|Intended|Operating|Programming|Topic)([a-z].*?)",?(.*)$', text, re.M
    )
    requirements = [entry for entry in listed if re.match(r"[a-z0-9.-]+(\[\w+\])?[<>=!~]", entry[0])]
    assert len(requirements) > 20
    for requirement, comment in requirements:
        assert "#" in comment, requirement


def test_no_module_is_too_long_to_read():
    long = {str(path): n for path in tracked("*.py") if (n := len((ROOT / path).read_text().splitlines())) > 330}
    assert {path: n for path, n in long.items() if not path.startswith("tests/")} == {}


def test_the_image_copies_what_is_there_and_allowed():
    dockerfile = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    allowed = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    copied = [
        name
        for line in dockerfile.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for name in shlex.split(line)[1:-1]
    ]
    assert set(copied) <= allowed
    assert all((ROOT / name).exists() for name in copied)
    assert re.search(r"^USER 10001:10001$", dockerfile, re.M)
    assert "HEALTHCHECK" in dockerfile


def test_no_host_of_a_registry_and_no_path_of_one_machine_is_written_down():
    banned = re.compile(r"/(root|home/\w+|opt/(?!polyhead)\w+|work)/\w|://[^/ ]*(python[h]osted|[p]ypi)")
    found = []
    for path in tracked():
        data = (ROOT / path).read_bytes()
        if b"\0" not in data and banned.search(data.decode("utf-8", "replace")):
            found.append(str(path))
    assert found == []


def test_the_pages_have_no_blanks_left_and_no_dead_links():
    for page in tracked("*.md"):
        text = (ROOT / page).read_text()
        assert not re.search(r"@[A-Z]{3,}@", text), page
        for link in re.findall(r"\]\((?!http|#)([^)#]+)", text):
            assert (ROOT / page).parent.joinpath(link).exists(), f"{page}: {link}"
