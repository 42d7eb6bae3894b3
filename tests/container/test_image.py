"""What is in the image, and what is not."""

from __future__ import annotations

import re
import stat
import subprocess
from importlib.metadata import distributions
from pathlib import Path

LARGEST = 1_300_000_000  # bytes, of the CPU target
SITE = "opt/polyhead/lib/python3.11/site-packages"
# That of which only Java's windows, and CUDA's, are in need: none is there, and none is loaded.
WINDOWS = re.compile(r"libX|libasound|libcuda|libnvrtc|libcudart|libcublas")


def test_it_is_small(image):
    parts = {path.name: 0 for path in (image.root / SITE).iterdir()}
    for path in (image.root / SITE).rglob("*"):
        if path.is_file() and not path.is_symlink():
            parts[path.relative_to(image.root / SITE).parts[0]] += path.stat().st_size
    greatest = sorted(parts.items(), key=lambda item: -item[1])[:10]
    print(f"{image.bytes() / 1e6:.0f} MB:", ", ".join(f"{name} {size / 1e6:.0f}" for name, size in greatest))
    assert image.bytes() <= LARGEST


def test_nothing_in_it_installs_builds_trains_or_logs_in(image):
    names = {path.name for path in image.files()}
    tools = "sh bash dash apt apt-get dpkg perl pip pip3 gcc cc ld as strip make su login passwd mount curl wget nc ssh"
    programs = {path.name for path in image.files() if path.parent.name in ("bin", "sbin")}
    assert programs & set(tools.split()) == set()
    installed = {path.name.partition("-")[0] for path in (image.root / SITE).iterdir()}
    unwanted = {"pip", "setuptools", "wheel", "lightning", "onnxscript", "scikit_learn", "pytest", "huggingface_hub"}
    assert installed & unwanted == set()
    assert "ensurepip" not in names
    assert not any(name.endswith((".a", ".h", ".hpp", ".pyx")) for name in names)
    assert not any(name.endswith("providers_cuda.so") for name in names)
    assert not any(
        re.fullmatch(r"test_\w+\.py|conftest\.py", path.name)
        for path in image.files()
        if "torch" in path.parts and "_inductor" not in path.parts  # which Dynamo imports
    )


def test_of_polyhead_there_is_what_serves(image):
    house = image.root / SITE / "polyhead"
    assert not (house / "export").exists()
    models = {path.name for path in (house / "models").glob("*.py")}
    wanted = "__init__ arrays bio faults fields inputs spec textarray tokenizer yaml"
    assert models == {f"{name}.py" for name in wanted.split()}
    assert not any(path.is_dir() and path.name != "__pycache__" for path in (house / "models").iterdir())


def test_no_file_gives_rights_and_none_but_tmp_can_be_written(image):
    for path in image.root.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode) or path.parts[len(image.root.parts)] in ("proc", "sys", "dev"):
            continue
        name = f"/{path.relative_to(image.root)}"
        assert not mode & (stat.S_ISUID | stat.S_ISGID) or stat.S_ISDIR(mode), name
        assert not mode & stat.S_IWOTH or name in ("/tmp", "/var/tmp", "/run/lock") or name.startswith("/tmp/"), name
        assert path.lstat().st_uid == 0, name


def test_every_library_finds_the_libraries_it_needs(image):
    faults = []
    for path in image.files():
        whole = image.root / str(path).lstrip("/")
        if whole.is_symlink() or not whole.is_file() or not re.search(r"\.so(\.|$)|^/usr/s?bin/|/bin/java$", str(path)):
            continue
        with whole.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                continue
        listed = subprocess.run(
            ["chroot", str(image.root), "/lib64/ld-linux-x86-64.so.2", "--list", str(path)],
            capture_output=True,
            text=True,
        )
        missing = re.findall(r"(\S+) => not found", listed.stdout)
        faults += [f"{path}: {name}" for name in missing if not WINDOWS.match(name)]
    assert faults == []


def test_the_bill_of_materials_is_valid_and_names_everything(image, bill):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = (image.root / "usr/share/polyhead/sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    named = {component["purl"].partition("?")[0] for component in bill["components"]}
    for one in distributions(path=[str(image.root / SITE)]):
        name = re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower()
        if name != "polyhead":
            assert f"pkg:pypi/{name}@{one.version.replace('+', '%2B')}" in named
    status = (image.root / "var/lib/dpkg/status").read_text()
    for package in re.findall(r"^Package: (\S+)$", status, re.M):
        assert any(purl.startswith(f"pkg:deb/debian/{package.replace('+', '%2B')}@") for purl in named), package
    assert any(purl.startswith("pkg:generic/openjdk@") for purl in named)
    assert "pkg:maven/io.netty/netty-handler@4.1.53.Final" in named


def test_licences_lie_beside_it(image):
    licences = image.root / "usr/share/polyhead/licences"
    assert "Apache License" in (licences / "polyhead").read_text()
    for name in (
        "python/torch",
        "python/numpy",
        "java/openjdk/java.base",
        "debian/nginx",
        "debian/libc6",
        "debian/common-licenses",
    ):
        assert (licences / name).exists(), name


def test_nothing_tells_of_the_machine_that_built_it(image):
    for name in ("etc/resolv.conf", "etc/hostname", "etc/hosts", "etc/pip.conf"):
        path = Path(image.root, name)
        assert not path.exists() or path.read_text() == "", name
    assert not any("PIP" in entry for entry in image.config["Env"])


def test_its_labels_and_how_it_runs(image):
    labels = image.config["Labels"]
    for name in ("title", "version", "revision", "licenses", "base.name"):
        assert labels[f"org.opencontainers.image.{name}"]
    documentation = labels["org.opencontainers.image.documentation"]
    assert "Polyhead" in (image.root / documentation.lstrip("/")).read_text()
    assert image.config["User"] == "10001:10001"
    assert image.config["StopSignal"] == "SIGTERM"
    assert list(image.config["ExposedPorts"]) == ["8080/tcp"]
    assert image.docker["Healthcheck"]["Test"][0] == "CMD"  # no shell
