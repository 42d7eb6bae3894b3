"""TorchServe's two forms of a model hold the same files; tests/e2e/test_archive.py has both served."""

from __future__ import annotations

import hashlib
import json
import zipfile

import pytest
import yaml

from polyhead.export.archive import package_mar, package_no_archive
from polyhead.export.errors import ExportError
from polyhead.serving.bundle import Bundle


@pytest.fixture(scope="module")
def bundle(digits_bundle):
    return Bundle.open(digits_bundle)


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_folder_holds_what_the_archive_holds(bundle, tmp_path):
    folder = package_no_archive(bundle, tmp_path)
    assert folder == tmp_path / "digits"
    with zipfile.ZipFile(package_mar(bundle, tmp_path)) as archive:
        assert files(folder) == {name: archive.read(name) for name in archive.namelist()}
    assert Bundle.open(folder / "bundle").digest == bundle.digest
    model = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())["model"]
    assert (model["modelName"], model["modelVersion"]) == ("digits", "1.0")
    assert yaml.safe_load((folder / "model-config.yaml").read_text())["polyhead"]["bundle"] == "bundle"


def test_the_archive_is_the_same_bytes_each_time_and_in_one_order(bundle, tmp_path):
    first, second = (package_mar(bundle, tmp_path / name) for name in ("first", "second"))
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()
    with zipfile.ZipFile(first) as archive:
        names = archive.namelist()
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    assert names[:4] == ["MAR-INF/MANIFEST.json", "model-config.yaml", "polyhead_handler.py", "bundle/manifest.json"]
    assert names[4:] == sorted(names[4:])


def test_a_folder_is_replaced_on_request_with_what_a_worker_left_in_it(bundle, tmp_path):
    folder = package_no_archive(bundle, tmp_path)
    with pytest.raises(ExportError, match="digits exists already: give another --out, or --force to replace it"):
        package_no_archive(bundle, tmp_path)
    (folder / "__pycache__").mkdir()
    (folder / "model-config.yaml").write_text("minWorkers: 9\n")
    package_no_archive(bundle, tmp_path, force=True)
    assert "__pycache__" not in {p.name for p in folder.iterdir()}
    assert "minWorkers: 1\n" in (folder / "model-config.yaml").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["digits"]


def test_another_models_folder_is_kept_even_on_request(bundle, tmp_path):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "polyhead_handler.py").write_text("class Handler: ...\n")
    with pytest.raises(ExportError, match="digits is no model folder of polyhead package: --force would remove it"):
        package_no_archive(bundle, tmp_path, force=True)
    assert (tmp_path / "digits" / "polyhead_handler.py").read_text() == "class Handler: ...\n"
