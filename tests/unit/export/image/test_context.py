"""The build context of `polyhead containerize`, and the tool that is chosen."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from polyhead.export.errors import ExportError
from polyhead.export.image import context as module
from polyhead.export.image.builder import find_builder
from polyhead.export.image.context import write_context
from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import BundleError
from tests.command import run_polyhead


def listing(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Every file with its hash, rights and time."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.stat().st_mode & 0o777,
            int(path.stat().st_mtime),
        )
        for path in folder.rglob("*")
    }


def test_a_context_on_a_base_holds_the_verified_bundle_and_names_its_digest(digits_bundle, tmp_path):
    bundle = Bundle.open(digits_bundle)
    folder = write_context([bundle], tmp_path / "context", "cpu", "registry/polyhead:cpu")
    inside = folder / "bundles/digits-1.0"
    assert Bundle.open(inside).digest == bundle.digest
    dockerfile = (folder / "Dockerfile").read_text()
    assert dockerfile.splitlines()[1] == "FROM registry/polyhead:cpu"
    assert f'io.polyhead.models="digits/1.0@sha256:{bundle.digest}"' in dockerfile
    assert dockerfile.splitlines()[-1] == "COPY --chown=0:0 bundles /models"
    assert {path.name for path in folder.iterdir()} == {"Dockerfile", ".dockerignore", "bundles"}


def test_the_same_bundles_make_the_same_context_whatever_the_umask(digits_bundle, wine, tmp_path):
    bundles = [Bundle.open(digits_bundle), Bundle.open(wine["bundle"])]
    first = listing(write_context(bundles, tmp_path / "a", "cpu", "base"))
    before = os.umask(0o077)
    try:
        second = listing(write_context(bundles, tmp_path / "b", "cpu", "base"))
    finally:
        os.umask(before)
    assert first == second
    assert {mode for _, mode, _ in first.values()} == {0o755, 0o644}
    assert {time for _, _, time in first.values()} == {0}


def test_without_a_base_the_sources_are_in_it_and_the_target_is_the_last_stage(digits_bundle, tmp_path):
    folder = write_context([Bundle.open(digits_bundle)], tmp_path / "context", "gpu", None)
    lines = (folder / "Dockerfile").read_text().splitlines()
    assert "FROM gpu" in lines
    assert lines.index("FROM gpu") > lines.index("FROM cpu")
    assert {"requirements", "models", "serving", "pyproject.toml", "container"} <= {
        path.name for path in folder.iterdir()
    }
    assert not any(path.name == "__pycache__" for path in folder.rglob("*"))


def test_an_installation_without_sources_asks_for_a_base(digits_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHECKOUT", tmp_path)
    with pytest.raises(ExportError, match="has no Dockerfile to build from: give --base IMAGE"):
        write_context([Bundle.open(digits_bundle)], tmp_path / "context", "cpu", None)


def test_one_model_twice_is_refused(digits_bundle, tmp_path):
    bundle = Bundle.open(digits_bundle)
    with pytest.raises(ExportError, match=r"model digits/1\.0 was given twice"):
        write_context([bundle, bundle], tmp_path / "context", "cpu", "base")


def test_a_bundle_that_changes_meanwhile_is_refused_and_nothing_is_left(digits_bundle, tmp_path):
    changed = shutil.copytree(digits_bundle, tmp_path / "digits")
    bundle = Bundle.open(changed)
    (changed / "parity.json").write_text("{}")
    with pytest.raises(BundleError, match=r"parity\.json"):
        write_context([bundle], tmp_path / "context", "cpu", "base")
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_what_is_not_ours_is_never_replaced(digits_bundle, tmp_path):
    bundle = Bundle.open(digits_bundle)
    folder = write_context([bundle], tmp_path / "context", "cpu", "base")
    with pytest.raises(ExportError, match="exists already"):
        write_context([bundle], folder, "cpu", "base")
    write_context([bundle], folder, "cpu", "other", force=True)
    assert "FROM other" in (folder / "Dockerfile").read_text()
    (folder / "thesis.tex").write_text("three years")
    with pytest.raises(ExportError, match=r"holds thesis\.tex"):
        write_context([bundle], folder, "cpu", "base", force=True)
    assert (folder / "thesis.tex").read_text() == "three years"


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A PATH with docker, podman or buildah on it, that work or do not."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def add(name: str, status: int, words: str = "") -> None:
        (folder / name).write_text(f"#!/bin/sh\necho '{words}' >&2\nexit {status}\n")
        (folder / name).chmod(0o755)

    return add


def test_the_first_tool_that_works_is_taken_and_the_others_are_named(tools):
    tools("docker", 1, "Cannot connect to the Docker daemon")
    tools("buildah", 0)
    found = find_builder("auto")
    assert found.name == "buildah"
    assert found.passed == ("docker does not work (Cannot connect to the Docker daemon)", "podman is not installed")


def test_where_none_works_the_error_says_why_of_each(tools):
    tools("docker", 1, "Cannot connect to the Docker daemon")
    with pytest.raises(ExportError, match=r"docker does not work .*podman is not installed; buildah is not installed"):
        find_builder("auto")
    with pytest.raises(ExportError, match="podman is not installed"):
        find_builder("podman")


def test_the_verb_writes_a_context_and_wants_a_tag_or_an_output(digits_bundle, tmp_path):
    said = json.loads(
        run_polyhead("containerize", digits_bundle, "--base", "b", "--output", tmp_path / "c", "--json").stdout
    )
    assert said == {"context": str(tmp_path / "c"), "models": {"digits/1.0": Bundle.open(digits_bundle).digest}}
    assert "give --tag" in run_polyhead("containerize", digits_bundle, expect=2).stderr


@pytest.mark.parametrize("line", ["polyhead_max_rows=-1", "polyhead_drain_timeout=soon", "polyhead_front_rate=-1"])
def test_a_value_that_no_server_would_take_is_told_before_anything_is_built(tmp_path, line):
    config = tmp_path / "config.properties"
    config.write_text(f"{line}\n")
    said = run_polyhead("containerize", tmp_path, "--config", config, "--output", tmp_path / "context", expect=1).stderr
    assert str(config) in said
    assert line.partition("=")[0].removeprefix("polyhead_").removeprefix("front_") in said
    assert not (tmp_path / "context").exists()


def test_a_build_that_fails_tells_the_tools_own_status(digits_bundle, tools, tmp_path):
    tools("buildah", 0)
    Path(os.environ["PATH"], "buildah").write_text('#!/bin/sh\n[ "$1" = info ] || exit 125\n')
    result = run_polyhead("containerize", digits_bundle, "--base", "b", "--tag", "t", "--builder", "buildah", expect=1)
    assert "buildah build ended with 125" in result.stderr
