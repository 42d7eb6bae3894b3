"""Reliability test 14: bundles made to do harm, given to a running server, to a start and to batch scoring.

Each has hashes that fit, for whoever makes one takes care of that; what it would do leaves a mark outside of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle  # noqa: TID251 - to make what must never be opened
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.command import run_polyhead
from tests.server import Running, serving

BODY = {"instances": [{"image": [[0] * 8] * 8}]}
Forge = Callable[[Path, Path], None]


class Trap:
    """Whoever unpickles it runs a command."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self._mark}",)


def put(bundle: Path, name: str, data: bytes) -> None:
    """A file, and its hash in the manifest."""
    (bundle / name).write_bytes(data)
    edit(bundle, lambda manifest: manifest["files"].update({name: about(data)}))


def about(data: bytes) -> dict[str, object]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def edit(bundle: Path, change: Callable[[dict], object]) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def pickled_graph(bundle: Path, mark: Path) -> None:
    put(bundle, "graphs/fused.onnx", pickle.dumps(Trap(mark)))


def pickled_samples(bundle: Path, mark: Path) -> None:
    put(bundle, "golden.safetensors", pickle.dumps(Trap(mark)))


def pickle_beside(bundle: Path, mark: Path) -> None:
    (bundle / "weights.pkl").write_bytes(pickle.dumps(Trap(mark)))


def code_beside(bundle: Path, mark: Path) -> None:
    (bundle / "handler.py").write_text(f"import os\nos.system('touch {mark}')\n")


def file_above(bundle: Path, mark: Path) -> None:
    (bundle.parent / "secret").write_bytes(b"secret")
    edit(bundle, lambda manifest: manifest["files"].update({"../secret": about(b"secret")}))


def absolute_file(bundle: Path, mark: Path) -> None:
    edit(
        bundle, lambda manifest: manifest["files"].update({"/etc/hostname": about(Path("/etc/hostname").read_bytes())})
    )


def link_out(bundle: Path, mark: Path) -> None:
    graph = bundle / "graphs" / "fused.onnx"
    graph.rename(bundle.parent / "fused.onnx")
    graph.symlink_to(bundle.parent / "fused.onnx")


def folder_linked_out(bundle: Path, mark: Path) -> None:
    (bundle / "graphs").rename(bundle.parent / "graphs")
    (bundle / "graphs").symlink_to(bundle.parent / "graphs")


def external_data(place: str) -> Forge:
    def forge(bundle: Path, mark: Path) -> None:
        model = onnx.load(bundle / "graphs" / "fused.onnx", load_external_data=False)
        tensor = max(model.graph.initializer, key=onnx.TensorProto.ByteSize)
        data = onnx.numpy_helper.to_array(tensor).tobytes()
        tensor.raw_data = data  # without which onnx would not set what we set
        (bundle.parent / "outside.bin").write_bytes(data)
        where = str(bundle.parent / "outside.bin") if place == "absolute" else place
        tensor.ClearField("float_data")
        onnx.external_data_helper.set_external_data(tensor, where, 0, len(data))
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        put(bundle, "graphs/fused.onnx", model.SerializeToString())

    return forge


def huge_header(length: int) -> Forge:
    def forge(bundle: Path, mark: Path) -> None:
        put(bundle, "golden.safetensors", struct.pack("<Q", length) + b"{" + b" " * 4096)

    return forge


HOSTILE: dict[str, tuple[Forge, str]] = {
    "a pickle as its graph": (pickled_graph, "graphs/fused.onnx"),
    "a pickle as its golden samples": (pickled_samples, "golden.safetensors"),
    "a pickle beside": (pickle_beside, "weights.pkl"),
    "code beside": (code_beside, "handler.py"),
    "a file above it": (file_above, "../secret"),
    "an absolute file": (absolute_file, "/etc/hostname"),
    "a link out of it": (link_out, "graphs/fused.onnx"),
    "a folder that is a link out of it": (folder_linked_out, "graphs"),
    "weights in a file above it": (external_data("../../outside.bin"), "outside.bin"),
    "weights at an absolute path": (external_data("absolute"), "outside.bin"),
    "a header of 8 exabytes": (huge_header(2**63 - 1), "golden.safetensors"),
    "a header of 90 megabytes that is not there": (huge_header(90 * 1024 * 1024), "golden.safetensors"),
}


@pytest.fixture(scope="module")
def changeable(digits_bundle: Path) -> Iterator[Running]:
    """A server to which versions may be added."""
    with serving([digits_bundle], "--set", "enable_model_api=true") as running:
        yield running


@pytest.fixture
def forged(digits_bundle: Path, tmp_path: Path) -> Callable[[Forge], tuple[Path, Path]]:
    """A hostile copy of the reference model, as version 6.6, and the mark that it would leave."""

    def make(forge: Forge) -> tuple[Path, Path]:
        bundle, mark = tmp_path / "in" / "digits", tmp_path / "mark"
        shutil.copytree(digits_bundle, bundle)
        edit(bundle, lambda manifest: manifest["spec"].update(version="6.6"))
        forge(bundle, mark)
        return bundle, mark

    return make


def resident(processes: list[psutil.Process]) -> int:
    return sum(process.memory_info().rss for process in processes)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_bundle_is_refused_by_name_and_the_server_serves_on(
    name: str, changeable: Running, forged: Callable[[Forge], tuple[Path, Path]]
) -> None:
    forge, named = HOSTILE[name]
    bundle, mark = forged(forge)
    before, expected = resident(changeable.family()), changeable.predict("digits", BODY).content
    refused = run_polyhead(
        *("deploy", "add", "digits", "6.6", "--bundle", bundle, "--server", changeable.side), expect=1
    ).stderr.splitlines()
    assert named in refused[-1], refused
    assert changeable.predict("digits", BODY).content == expected
    assert changeable.predict("digits/6.6", BODY).status_code == 404
    assert not mark.exists()
    assert resident(changeable.family()) - before < 200 * 1024 * 1024


@pytest.mark.parametrize("name", ["weights in a file above it"])
def test_scoring_refuses_it_too(name: str, forged: Callable[[Forge], tuple[Path, Path]], tmp_path: Path) -> None:
    forge, named = HOSTILE[name]
    bundle, mark = forged(forge)
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(64, np.uint8)), 64)
    pq.write_table(pa.table({"image": column}), tmp_path / "in.parquet")
    errors = run_polyhead("score", bundle, tmp_path / "in.parquet", tmp_path / "out", expect=1).stderr
    assert named in errors
    assert not mark.exists()
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_an_archive_is_no_bundle_and_nothing_of_it_is_unpacked(
    digits_bundle: Path, changeable: Running, tmp_path: Path
) -> None:
    """A zip whose entry climbs out of the folder it is unpacked into; TorchServe would fetch and unpack a `.mar`."""
    archive = tmp_path / "evil.mar"
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("../../../../../../.." + str(tmp_path / "slipped"), "x")
        writer.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": "evil", "modelVersion": "1"}}))
    for arguments in (
        ("serve", archive, "--port", 0),
        ("deploy", "add", "evil", "1", "--bundle", archive, "--server", changeable.side),
        ("score", archive, archive, tmp_path / "out"),
    ):
        assert str(archive) in run_polyhead(*arguments, expect=1).stderr
    register = {"url": archive.as_uri(), "initial_workers": "1"}
    assert changeable.http.post(f"{changeable.management}/models", params=register).status_code in (403, 405)
    assert not (tmp_path / "slipped").exists()


def test_a_file_changed_after_it_was_verified_is_never_served(digits_bundle: Path, tmp_path: Path) -> None:
    """Each worker opens the bundle anew: the server refuses one that is not what it opened, and says which file."""
    bundle = tmp_path / "digits"
    shutil.copytree(digits_bundle, bundle)
    with serving([bundle], "--workers", "1") as running:
        expected = running.predict("digits", BODY).content
        data = bytearray((bundle / "graphs" / "fused.onnx").read_bytes())
        data[len(data) // 2] ^= 1
        (bundle / "graphs" / "fused.onnx").write_bytes(data)
        assert running.predict("digits", BODY).content == expected  # what runs was read before
    errors = run_polyhead("serve", bundle, "--port", 0, expect=1).stderr
    assert "graphs/fused.onnx was changed" in errors
