"""`polyhead doctor` as an operator runs it: beside a server that serves, and where something is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from polyhead.serving.errors import LaunchError
from polyhead.serving.frontdoor.nginx import find_nginx
from tests.command import POLYHEAD, run_polyhead, without_java
from tests.freeports import free_ports
from tests.server import Running


def examined(*arguments: object, expect: int = 0, **options: Any) -> dict[str, list[dict[str, str]]]:
    """The findings by topic."""
    said = json.loads(run_polyhead("doctor", *arguments, "--json", expect=expect, **options).stdout)
    assert said["healthy"] is (expect == 0)
    assert said["problems"] == sum(finding["level"] == "problem" for finding in said["findings"])
    assert said["warnings"] == sum(finding["level"] == "warning" for finding in said["findings"])
    for finding in said["findings"]:
        assert (finding["why"] == "") is (finding["level"] == "ok"), finding
    found: dict[str, list[dict[str, str]]] = {}
    for finding in said["findings"]:
        found.setdefault(finding["topic"], []).append(finding)
    return found


@pytest.fixture
def port() -> int:
    """One with two free ones behind it."""
    return free_ports()[0]


def test_a_server_that_serves_is_told_of_with_every_model(server: Running, digits_bundle):
    side = str(server.ready["side"])
    found = examined("--url", side, "--bundle", digits_bundle, "--port", urlsplit(side).port - 2)
    assert "(metrics and health) is in use: a Polyhead serves there" in found["ports"][0]["what"]
    assert "digits/1.0 ready; wine/1.0 ready" in found["ready"][0]["what"]
    assert "with the right hashes" in found["bundle"][0]["what"]
    assert "fused-onnx in onnxruntime on cpu reproduces" in found["golden"][0]["what"]
    assert found["fast path"][0]["what"].startswith("active: ")


def test_without_json_it_is_a_list_with_what_mends_it(tmp_path, port):
    environment = {**without_java(), "JAVA_HOME": str(tmp_path)}
    result = run_polyhead("doctor", "--port", port, expect=1, env=environment)
    lines = result.stdout.splitlines()
    (line,) = [number for number, text in enumerate(lines) if text.startswith("PROBLEM")]
    assert lines[line].split()[1] == "java"
    assert f"JAVA_HOME is {tmp_path}, which has no bin/java" in lines[line]
    assert lines[line + 1].strip().startswith("why: ")
    assert lines[line + 2].strip().startswith("mend: unset JAVA_HOME")
    assert result.stderr.splitlines()[-1].endswith(" 1 problems")


def test_a_broken_bundle_a_bad_configuration_and_a_long_path_are_all_found_at_once(tmp_path, digits_bundle, port):
    broken = tmp_path / "broken"
    shutil.copytree(digits_bundle, broken)
    with (broken / "golden.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    configuration = tmp_path / "config.properties"
    configuration.write_text("polyhead_workers=none\n")
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    found = examined(
        *("--bundle", broken, "--bundle", tmp_path / "nowhere", "--config", configuration, "--port", port),
        expect=1,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert [finding["level"] for finding in found["bundle"]] == ["problem", "problem"]
    assert "golden.safetensors" in found["bundle"][0]["what"]
    assert "polyhead_workers" in found["configuration"][0]["what"] or "workers" in found["configuration"][0]["what"]
    assert found["tmp"][0]["mend"] == "TMPDIR=/tmp, or another short path"
    assert found["torchserve"][0]["level"] == "ok", "the rest is looked at all the same"


def test_nothing_at_a_url_is_exit_status_1(port):
    found = examined("--url", f"http://127.0.0.1:{port}", "--port", port, expect=1)
    assert found["server"][0]["what"] == f"nothing answers at http://127.0.0.1:{port}"


def test_a_front_door_that_is_wanted_needs_nginx(tmp_path, port):
    configuration = tmp_path / "config.properties"
    configuration.write_text("polyhead_front_door=true\npolyhead_front_api_keys=keys.txt\n")
    try:
        find_nginx()
    except LaunchError:
        assert examined("--config", configuration, "--port", port, expect=1)["front door"][0]["what"] == "no nginx"
        return
    missing = examined("--config", configuration, "--port", port, expect=1, cwd=tmp_path)["front door"][0]
    assert missing["what"] == f"{tmp_path / 'keys.txt'} cannot be read"
    keys = Path(tmp_path / "keys.txt")
    keys.write_text("shop 0123456789abcdef0123456789abcdef\n")
    keys.chmod(0o604)
    refused = examined("--config", configuration, "--port", port, expect=1, cwd=tmp_path)["front door"][0]
    assert refused["what"].startswith(f"{keys}: everybody")
    assert "chmod o-r" in refused["what"]
    keys.chmod(0o600)
    fine = examined("--config", configuration, "--port", port, cwd=tmp_path)["front door"][0]
    assert fine["what"].endswith("on, no TLS, 1 API keys")
    assert "0123456789abcdef" not in str(fine)


def test_it_is_quick_and_imports_no_torch(port):
    code = (
        "import sys; from polyhead.serving.doctor.examination import examine; "
        f"list(examine((), None, None, {port})); print('torch' in sys.modules, 'onnxruntime' in sys.modules)"
    )
    result = subprocess.run([str(POLYHEAD.with_name("python")), "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False False"
