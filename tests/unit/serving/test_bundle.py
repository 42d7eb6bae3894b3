from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import safetensors.numpy

from polyhead.serving.bundle import GOLDEN, MANIFEST, Bundle
from polyhead.serving.errors import BundleError
from polyhead.serving.golden import Golden
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings
from tests.unit.serving.wordpiece import tokenizer_json

ONNX = "graphs/fused.onnx"
GRAPHS = [ONNX, "graphs/fused.ts", "graphs/fused.pt2"]
WEIGHTS = "graphs/weights.bin"
FILES = [GOLDEN, *GRAPHS, WEIGHTS, "openapi.json", "parity.json"]
TOKENIZER = "preprocess/text/tokenizer.json"

Forge = Callable[[Path, str, bytes], None]


@pytest.fixture
def folder(mlp, copy_of) -> Path:
    """A bundle that the test may harm."""
    found: Path = copy_of(mlp)
    return found


def _refused(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = orjson.loads((folder / MANIFEST).read_bytes())
    change(manifest)
    (folder / MANIFEST).write_bytes(orjson.dumps(manifest))


# --- a sound bundle -------------------------------------------------------------------------------------------------


def test_a_sound_bundle_opens(mlp, folder: Path):
    bundle = Bundle.open(folder)
    assert bundle.spec == mlp.bundle.spec
    assert bundle.title == "mlp/1.0"
    assert bundle.manifest == mlp.bundle.manifest
    assert sorted(bundle.manifest.files) == sorted(FILES)
    assert [graph.file for graph in bundle.manifest.graphs] == GRAPHS


def test_the_digest_is_the_hash_of_the_manifest(folder: Path):
    assert Bundle.open(folder).digest == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


@pytest.mark.parametrize("name", FILES)
def test_read_returns_the_file(folder: Path, name: str):
    data = Bundle.open(folder).read(name)
    assert data == (folder / name).read_bytes()
    assert data


def test_golden_has_every_input_and_head(mlp, folder: Path):
    golden = Bundle.open(folder).golden()
    assert set(golden.inputs) == {"x"}
    assert set(golden.outputs) == set(mlp.bundle.spec.heads)
    np.testing.assert_array_equal(golden.inputs["x"], mlp.samples["x"][: golden.rows])


def test_a_bundle_may_be_reached_through_a_link(folder: Path, tmp_path: Path):
    (tmp_path / "current").symlink_to(folder)
    assert Bundle.open(tmp_path / "current").title == "mlp/1.0"


# --- harm done to it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_one_flipped_byte_is_found(folder: Path, name: str, place: float):
    data = bytearray((folder / name).read_bytes())
    data[int(place * (len(data) - 1))] ^= 0x10
    (folder / name).write_bytes(data)
    actual, wanted = hashlib.sha256(data).hexdigest(), Bundle._read_manifest(folder).manifest.files[name].sha256
    assert _refused(folder) == (
        f"{folder}: {name} was changed (sha256 {actual[:12]}, the manifest says {wanted[:12]}): export the bundle again"
    )


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", ["cut", "emptied", "longer"])
def test_a_file_of_another_length_is_found(folder: Path, name: str, change: str):
    data = (folder / name).read_bytes()
    other = {"cut": data[:-1], "emptied": b"", "longer": data + b"\0"}[change]
    (folder / name).write_bytes(other)
    assert _refused(folder) == (
        f"{folder}: {name} has {len(other)} bytes, the manifest says {len(data)}: "
        "it was changed or cut short; export the bundle again"
    )


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str):
    (folder / name).unlink()
    assert _refused(folder) == f"{folder}: {name} is missing: export the bundle again"


@pytest.mark.parametrize("name", ["extra.bin", "graphs/fused.onnx.data", ".hidden", "graphs/deep/er/payload.py"])
def test_an_extra_file_is_named(folder: Path, name: str):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"")
    assert _refused(folder) == (f"{folder}: {name} is not in the manifest: remove it, or export the bundle again")


@pytest.mark.parametrize("name", FILES)
def test_a_link_in_place_of_a_file_is_named(folder: Path, tmp_path: Path, name: str):
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    assert _refused(folder) == f"{folder}: {name} is a link or a special file: a bundle holds files only"


def test_a_link_in_place_of_a_folder_is_named(folder: Path, tmp_path: Path):
    (folder / "graphs").rename(tmp_path / "elsewhere")
    (folder / "graphs").symlink_to(tmp_path / "elsewhere")
    assert _refused(folder) == f"{folder}: graphs is a link or a special file: a bundle holds files only"


def test_a_dangling_link_is_named(folder: Path):
    (folder / "extra").symlink_to("/nowhere")
    assert _refused(folder) == f"{folder}: extra is a link or a special file: a bundle holds files only"


@pytest.mark.parametrize("name", [ONNX, "pipe"])
def test_a_pipe_is_named_and_not_waited_for(folder: Path, name: str):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert _refused(folder) == f"{folder}: {name} is a link or a special file: a bundle holds files only"


def test_a_folder_in_place_of_a_file_is_a_missing_file(folder: Path):
    (folder / "parity.json").unlink()
    (folder / "parity.json").mkdir()
    assert _refused(folder) == f"{folder}: parity.json is missing: export the bundle again"


def test_a_file_changed_since_opening_is_not_handed_out(folder: Path):
    bundle = Bundle.open(folder)
    data = bytearray((folder / ONNX).read_bytes())
    data[-1] ^= 1
    (folder / ONNX).write_bytes(data)
    with pytest.raises(BundleError, match=f"{ONNX} was changed"):
        bundle.read(ONNX)


def test_a_file_that_became_a_link_since_opening_is_not_followed(folder: Path, tmp_path: Path):
    bundle = Bundle.open(folder)
    (folder / ONNX).rename(tmp_path / "same")
    (folder / ONNX).symlink_to(tmp_path / "same")
    with pytest.raises(BundleError, match=f"{ONNX} cannot be read"):
        bundle.read(ONNX)


def test_a_file_removed_since_opening_is_named(folder: Path):
    bundle = Bundle.open(folder)
    (folder / ONNX).unlink()
    with pytest.raises(BundleError, match=rf"{ONNX} cannot be read \(No such file or directory\)"):
        bundle.read(ONNX)


# --- the manifest ---------------------------------------------------------------------------------------------------


def test_a_folder_without_a_manifest_is_no_bundle(folder: Path):
    (folder / MANIFEST).unlink()
    assert _refused(folder) == f"{folder}: is no bundle (it has no {MANIFEST}): polyhead export writes one"


def test_a_manifest_that_is_a_link_is_none(folder: Path, tmp_path: Path):
    (folder / MANIFEST).rename(tmp_path / "manifest")
    (folder / MANIFEST).symlink_to(tmp_path / "manifest")
    assert _refused(folder) == f"{folder}: is no bundle (it has no {MANIFEST}): polyhead export writes one"


def test_what_is_no_folder_is_no_bundle(folder: Path, tmp_path: Path):
    for path in (tmp_path / "absent", folder / MANIFEST):
        assert _refused(path) == f"{path}: is no directory: give the directory that polyhead export wrote"


@pytest.mark.parametrize("data", [b"", b"{", b"not json", b"\xff\xfe", b"[]", b"null", b'"x"', b"[" * 10_000])
def test_a_manifest_that_is_no_json_object_is_refused(folder: Path, data: bytes):
    (folder / MANIFEST).write_bytes(data)
    message = _refused(folder)
    assert message.startswith(f"{folder / MANIFEST}: ")
    assert message.endswith(": export the bundle again")


def test_a_huge_manifest_is_not_read(folder: Path):
    with (folder / MANIFEST).open("r+b") as file:
        file.truncate(16 * 1024 * 1024 + 1)
    assert _refused(folder) == f"{folder / MANIFEST}: is larger than 16777216 bytes: this is no manifest"


UNKNOWN = "is not a key that is known here: remove it, or check its spelling"
EDITS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown key": (lambda m: m.update(extra=1), f"extra: {UNKNOWN}"),
    "unknown key of a graph": (lambda m: m["graphs"][0].update(path="x"), f"graphs.0.path: {UNKNOWN}"),
    "unknown key of the spec": (lambda m: m["spec"].update(titel="x"), f"spec.titel: {UNKNOWN}"),
    "another format": (lambda m: m.update(format=1), "format: Input should be 2, got 1"),
    "no graphs": (lambda m: m.update(graphs=[]), "graphs: "),
    "no spec": (lambda m: m.pop("spec"), "spec: is missing"),
    "no tolerance": (lambda m: m["graphs"][0].pop("tolerance"), "graphs.0.tolerance: is missing"),
    "a tolerance of zero": (lambda m: m["graphs"][0]["tolerance"].update(atol=0), "graphs.0.tolerance.atol: "),
    "an agreement beyond all": (lambda m: m["graphs"][0].update(agreement=1.01), "graphs.0.agreement: "),
    "an unknown precision": (lambda m: m["graphs"][0].update(precision="fp8"), "graphs.0.precision: "),
    "an unknown part": (lambda m: m["graphs"][0].update(part="tail"), "graphs.0.part: "),
    "an unknown device": (lambda m: m["graphs"][0].update(meant=["tpu"]), "graphs.0.meant.0: "),
    "a negative size": (lambda m: m["files"][GOLDEN].update(size=-1), f"files.{GOLDEN}.size: "),
    "a short hash": (lambda m: m["files"][GOLDEN].update(sha256="ab"), f"files.{GOLDEN}.sha256: "),
    "a graph of another kind": (lambda m: m["graphs"][0].update(format="pickle"), "graphs.0.format: "),
    "a head that is reserved": (
        lambda m: m["spec"]["heads"].update(polyhead_x={"kind": "regression"}),
        "spec: head name 'polyhead_x' begins with 'polyhead_', which is reserved",
    ),
}


@pytest.mark.parametrize("name", list(EDITS))
def test_a_wrong_manifest_is_refused_with_the_place(folder: Path, name: str):
    change, fragment = EDITS[name]
    _edit(folder, change)
    message = _refused(folder)
    assert message.startswith(f"{folder / MANIFEST}: {fragment}")
    assert message.endswith(": export the bundle again")


PATHS = ["../outside", "graphs/../../outside", "/etc/passwd", "graphs/", "./x", "a//b", ".hidden", "a\\b", "", "a\0b"]
PATHS += ["graphs/fused.onnx\n", "graphs/.hidden", "~/x", "ä"]


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_a_path_out_of_the_bundle_is_refused(folder: Path, path: str):
    (folder.parent / "outside").write_bytes(b"")
    entry = {"sha256": hashlib.sha256(b"").hexdigest(), "size": 0}
    _edit(folder, lambda m: m["files"].update({path: entry}))
    message = _refused(folder)
    assert message.startswith(f"{folder / MANIFEST}: files.")
    assert "String should match pattern" in message


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_a_graph_out_of_the_bundle_is_refused(folder: Path, path: str):
    _edit(folder, lambda m: m["graphs"][0].update(file=path))
    assert _refused(folder).startswith(f"{folder / MANIFEST}: graphs.0.file: String should match pattern")


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_weights_out_of_the_bundle_are_refused(folder: Path, path: str):
    _edit(folder, lambda m: m["graphs"][0].update(weights=path))
    assert _refused(folder).startswith(f"{folder / MANIFEST}: graphs.0.weights: String should match pattern")


UNNAMED: dict[str, Callable[[dict[str, Any]], object]] = {
    "two graphs of one id": lambda m: m["graphs"].append(m["graphs"][0]),
    "a graph without proof": lambda m: m["parity"].pop("fused-onnx"),
    "a proof without graph": lambda m: m["parity"].update({"fused-nose": m["parity"]["fused-onnx"]}),
    "no graph of everything": lambda m: [g.update(part="trunk") for g in m["graphs"]],
}


@pytest.mark.parametrize("name", list(UNNAMED))
def test_a_manifest_must_name_its_graphs(folder: Path, name: str):
    _edit(folder, UNNAMED[name])
    assert _refused(folder) == f"{folder}: {MANIFEST} does not name its graphs: export the bundle again"


UNFIT: dict[str, Callable[[dict[str, Any]], object]] = {
    "another input": lambda g: g.update(inputs=["y"]),
    "a head less": lambda g: g.update(outputs=g["outputs"][1:]),
    "not packed": lambda g: g.update(packed=None),
    "a head less in the columns": lambda g: g["packed"]["columns"].pop("level"),
    "a head less in the shapes": lambda g: g["packed"]["shapes"].pop("level"),
}


@pytest.mark.parametrize("name", list(UNFIT))
def test_a_graph_must_fit_the_spec(folder: Path, name: str):
    _edit(folder, lambda m: UNFIT[name](m["graphs"][0]))
    assert _refused(folder) == f"{folder}: graph fused-onnx does not fit the spec: export the bundle again"


@pytest.mark.parametrize(
    ("name", "file"), [("a graph", ONNX), ("weights of a graph", WEIGHTS), ("golden samples", GOLDEN)]
)
def test_files_that_are_needed_must_be_listed(folder: Path, name: str, file: str):
    _edit(folder, lambda m: m["files"].pop(file))
    assert _refused(folder) == f"{folder}: the manifest lists no {file}: export the bundle again"


def test_a_graphs_files_are_handed_out_verified(folder: Path):
    bundle = Bundle.open(folder)
    graph, script, _ = bundle.manifest.graphs
    assert bundle.graph_files(graph) == {name: (folder / name).read_bytes() for name in (ONNX, WEIGHTS)}
    assert list(bundle.graph_files(script)) == ["graphs/fused.ts"]
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[5] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(BundleError, match=f"{WEIGHTS} was changed"):
        bundle.graph_files(graph)
    bundle.graph_files(script)  # needs them not


# --- golden samples -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80\x04K\x01.", b"\xff" * 16 + b"{}", safetensors.numpy.save({"weights/x": np.zeros(1)})],
    ids=["nothing", "pickle", "huge header", "other keys"],
)
def test_golden_samples_that_are_something_else_are_refused(folder: Path, forge: Forge, data: bytes):
    forge(folder, GOLDEN, data)
    bundle = Bundle.open(folder)
    with pytest.raises(BundleError) as caught:
        bundle.golden()
    assert str(caught.value).startswith(f"{folder}: {GOLDEN} is damaged (")
    assert str(caught.value).endswith("): export the bundle again")


@pytest.mark.parametrize("change", ["input", "head", "more", "rows"])
def test_golden_samples_of_another_model_are_refused(mlp, folder: Path, forge: Forge, change: str):
    golden = mlp.bundle.golden()
    match change:
        case "input":
            golden.inputs["y"] = golden.inputs.pop("x")
        case "head":
            del golden.outputs["level"]
        case "more":
            golden.outputs["nose"] = golden.outputs["level"]
        case "rows":
            golden = Golden(*({k: v[:0] for k, v in part.items()} for part in (golden.inputs, golden.outputs)))
    forge(folder, GOLDEN, golden.dump())
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder).golden()
    assert str(caught.value) == f"{folder}: {GOLDEN} does not fit the spec: export the bundle again"


# --- texts ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def text_folder(lexicon, copy_of) -> Path:
    """A bundle with a text input, that the test may harm."""
    found: Path = copy_of(lexicon)
    return found


def test_a_bundle_with_texts_holds_its_tokenizer_and_its_golden_texts(lexicon, text_folder: Path):
    bundle = Bundle.open(text_folder)
    assert sorted(bundle.manifest.files) == sorted([*FILES, TOKENIZER, "prototypes/who.safetensors"])
    assert bundle.spec.inputs["text"].tokenizer == TOKENIZER  # type: ignore[union-attr]
    assert bundle.read(TOKENIZER) == tokenizer_json()
    assert bundle.manifest.versions["tokenizers"]
    golden = bundle.golden()
    assert golden.texts == {"text": lexicon.samples["text"][:16]}
    assert golden.texts["text"][:3] == ["", "Café", "hello there"]


def test_each_text_has_a_tokenizer_of_its_own(pair):
    names = [value.tokenizer for value in pair.bundle.spec.inputs.values() if value.kind == "text"]
    assert names == ["preprocess/question/tokenizer.json", "preprocess/my-passage/tokenizer.json"]
    assert set(names) <= set(pair.bundle.manifest.files)


def test_a_tokenizer_that_is_missing_is_named(text_folder: Path):
    (text_folder / TOKENIZER).unlink()
    assert _refused(text_folder) == f"{text_folder}: {TOKENIZER} is missing: export the bundle again"
    _edit(text_folder, lambda m: m["files"].pop(TOKENIZER))
    assert _refused(text_folder) == f"{text_folder}: the manifest lists no {TOKENIZER}: export the bundle again"


@pytest.mark.parametrize("path", ["../tokenizer.json", "/etc/passwd", "tokenizer.json", ""])
def test_a_tokenizer_out_of_the_bundle_is_not_read(text_folder: Path, path: str):
    _edit(text_folder, lambda m: m["spec"]["inputs"]["text"].update(tokenizer=path))
    assert _refused(text_folder) == f"{text_folder}: the manifest lists no {path}: export the bundle again"


def test_a_name_that_a_texts_array_has_too_is_refused(text_folder: Path):
    _edit(text_folder, lambda m: m["spec"]["heads"].update(input_ids={"kind": "regression"}))
    assert _refused(text_folder) == (
        f"{text_folder / MANIFEST}: 'input_ids' names an array of text input 'text': rename the input or head"
    )


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"model": {"type": "Nothing"}}'])
def test_what_is_no_tokenizer_is_refused_by_input(text_folder: Path, lexicon, forge: Forge, data: bytes):
    forge(text_folder, TOKENIZER, data)
    engine = lexicon.engine()
    engine.bundle = Bundle.open(text_folder)
    for load in (engine.replay_golden, lambda: Responder(engine, Settings())):
        with pytest.raises(BundleError) as caught:
            load()
        message = str(caught.value)
        assert message.startswith(f"bundle lexicon/1.0: input 'text': tokenizer {TOKENIZER}: cannot be read (")
        assert message.endswith("): give a tokenizer.json")


@pytest.mark.parametrize("change", ["texts", "row", "mask", "ids", "deep"])
def test_golden_texts_that_do_not_fit_are_refused(lexicon, text_folder: Path, forge: Forge, change: str):
    golden = lexicon.bundle.golden()
    match change:
        case "texts":
            golden.texts = {}
        case "row":
            golden.texts["text"].append("more")
        case "mask":
            golden.inputs["attention_mask"] = golden.inputs["attention_mask"][:, :-1]
        case "ids":
            golden.inputs["input_ids"] = golden.inputs["input_ids"].astype(np.int32)
    data = golden.dump()
    if change == "deep":
        arrays = safetensors.numpy.load(data)
        data = safetensors.numpy.save(arrays | {"texts/text": np.frombuffer(b"[" * 100_000, np.uint8)})
    forge(text_folder, GOLDEN, data)
    with pytest.raises(BundleError, match=r"golden\.safetensors (does not fit the spec|is damaged)"):
        Bundle.open(text_folder).golden()


# --- imports --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module",
    [
        "bundle",
        "manifest",
        "tuning",
        "errors",
        "golden",
        "protocol.json",
        "protocol.media",
        "collate",
        "answers",
        "client",
        "texts",
    ],
)
def test_importing_it_imports_no_torch(module: str, tmp_path: Path):
    code = (
        f"import sys, polyhead.serving.{module}; "
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'polyhead.export'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip() == "[]"
