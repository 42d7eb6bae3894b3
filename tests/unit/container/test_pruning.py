"""What the image's stages remove, on small trees of the same shape."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from container.application import only_serving
from container.debian import closure, leave, read_packages
from container.distributions import dedupe, distributions, prune, uninstall
from container.system import remove
from tests.command import ROOT

STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36
Depends: libgcc-s1

Package: libgcc-s1
Status: install ok installed
Architecture: amd64
Version: 12

Package: nginx
Status: install ok installed
Architecture: amd64
Version: 1.22
Source: nginx-source (1.22)
Depends: libc6 (>= 2.34), perl | perl5, mail-agent

Package: perl
Status: install ok installed
Architecture: amd64
Version: 5
Depends: dash

Package: dash
Status: install ok installed
Architecture: amd64
Version: 0.5

Package: exim
Status: install ok installed
Architecture: amd64
Version: 4
Provides: mail-agent

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
FILES = {
    "libc6": ["/.", "/usr", "/usr/lib", "/usr/lib/libc.so"],
    "libgcc-s1": ["/usr/lib/libgcc.so"],
    "nginx": ["/usr", "/usr/sbin", "/usr/sbin/nginx", "/lib/nginx.so"],
    "perl": ["/usr", "/usr/bin", "/usr/bin/perl"],
    "dash": ["/usr", "/usr/bin", "/bin/sh", "/usr/share/dash", "/usr/share/dash/menu"],
    "exim": ["/usr/lib/exim"],
}


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A root with its packages, where /bin and /lib are links into /usr, as on Debian."""
    root = tmp_path / "root"
    info = root / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (info.parent / "status").write_text(STATUS)
    for folder in ("usr/bin", "usr/lib", "usr/sbin", "usr/share/dash"):
        (root / folder).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "lib").symlink_to("usr/lib")
    for name, files in FILES.items():
        (info / f"{name}.list").write_text("\n".join(files) + "\n")
        (info / f"{name}.postinst").write_text("#!/bin/sh\n")
        for file in files:
            path = root / file.lstrip("/")
            if not path.is_dir():
                path.write_text(name)
    return root


def test_packages_are_read_with_what_they_need(system):
    packages = read_packages(system)
    assert sorted(packages) == ["dash", "exim", "libc6", "libgcc-s1", "nginx", "perl"]
    assert packages["nginx"].depends == (("libc6",), ("perl", "perl5"), ("mail-agent",))
    assert packages["nginx"].source == "nginx-source (1.22)"


def test_a_closure_follows_what_is_needed_and_stops_at_what_is_not(system):
    packages = read_packages(system)
    assert closure(packages, ["nginx", "not-here"], ()) == {"nginx", "libc6", "libgcc-s1", "perl", "dash", "exim"}
    assert closure(packages, ["nginx"], {"perl", "exim"}) == {"nginx", "libc6", "libgcc-s1"}


def test_packages_leave_with_their_files_and_the_list_stays_true(system):
    packages = read_packages(system)
    kept = closure(packages, ["nginx"], {"perl", "exim"})
    assert leave(system, packages, kept) == 3
    assert sorted(read_packages(system)) == ["libc6", "libgcc-s1", "nginx"]
    there = {str(path.relative_to(system)) for path in (system / "usr").rglob("*")}
    assert there == {
        "usr/lib",
        "usr/lib/libc.so",
        "usr/lib/libgcc.so",
        "usr/lib/nginx.so",
        "usr/sbin",
        "usr/sbin/nginx",
    } | ({"usr/share"} if (system / "usr/share").exists() else set())
    assert {path.name for path in (system / "var/lib/dpkg/info").iterdir()} == {f"{name}.list" for name in kept}


def test_what_is_mounted_is_never_removed(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "opt"
    (folder / "wheels").mkdir(parents=True)
    (folder / "wheels" / "torch.whl").write_text("the host's")
    monkeypatch.setattr("container.system.mounts", lambda: [Path("/"), folder / "wheels"])
    remove(folder)
    assert (folder / "wheels" / "torch.whl").exists()
    assert "stays: something is mounted there" in capsys.readouterr().out
    monkeypatch.setattr("container.system.mounts", lambda: [Path("/")])
    remove(folder)
    assert not folder.exists()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site-packages with two distributions."""
    site = tmp_path / "env/lib/python3.11/site-packages"
    for name, files in {
        "pip": ["pip/main.py", "../../../bin/pip"],
        "torch": ["torch/lib/libtorch.so", "torch/include/a.h"],
    }.items():
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        record = [*files, f"{info.name}/METADATA", f"{info.name}/RECORD"]
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in record))
        for file in files:
            path = site / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    return site


def test_a_distribution_leaves_with_all_that_it_brought(site):
    (site / "pip/__pycache__").mkdir()
    (site / "pip/__pycache__/main.cpython-311.pyc").write_bytes(b"")
    assert uninstall(site) == ["pip"]
    assert sorted(distributions(site)) == ["torch"]
    assert not (site / "pip").exists()
    assert not (site.parent.parent.parent / "bin/pip").exists()
    assert (site / "torch/lib/libtorch.so").exists()


def test_headers_go_and_libraries_stay(site):
    assert prune(site, gpu=False) == len("torch")
    assert not (site / "torch/include").exists()
    assert (site / "torch/lib/libtorch.so").exists()


def test_the_gpu_image_keeps_cudas_part_of_onnx_runtime(site):
    capi = site / "onnxruntime/capi"
    capi.mkdir(parents=True)
    for name in ("cuda", "tensorrt", "shared"):
        (capi / f"libonnxruntime_providers_{name}.so").write_bytes(b"x")
    prune(site, gpu=True)
    assert {path.name[25:-3] for path in capi.iterdir()} == {"cuda", "shared"}
    prune(site, gpu=False)
    assert {path.name[25:-3] for path in capi.iterdir()} == {"shared"}


def test_equal_libraries_side_by_side_become_one(site):
    folder = site / "pyarrow"
    folder.mkdir()
    for name in ("liba.so.2600", "liba.so", "liba.so.2600.1"):
        (folder / name).write_bytes(b"x" * 100_000)
    (folder / "libb.so").write_bytes(b"y" * 100_000)
    assert dedupe(site) == 200_000
    assert (folder / "liba.so.2600").readlink() == Path("liba.so")
    assert (folder / "liba.so.2600.1").read_bytes() == b"x" * 100_000
    assert not (folder / "libb.so").is_symlink()


def test_of_the_house_stays_what_serves_and_every_import_of_it_resolves(tmp_path):
    package = tmp_path / "polyhead"
    for name in ("models", "export", "serving", "cli"):
        shutil.copytree(ROOT / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    only_serving(package)
    assert not (package / "export").exists()
    models = {path.name for path in (package / "models").rglob("*.py")}
    assert {"spec.py", "tokenizer.py"} <= models
    assert models & {"training.py", "losses.py", "network.py", "run.py", "digits.py", "sampling.py"} == set()
    there = {".".join(("polyhead", *path.relative_to(package).with_suffix("").parts)) for path in package.rglob("*.py")}
    there |= {name.removesuffix(".__init__") for name in there}
    for path in sorted(
        [*(package / "serving").rglob("*.py"), *(package / "models").rglob("*.py"), package / "cli/main.py"]
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("polyhead."):
                assert node.module in there, f"{path}: {node.module}"
