"""`polyhead package`: forms, precisions, and what it prints."""

from __future__ import annotations

import json

import pytest

from polyhead.serving.bundle import Bundle
from tests.command import run_polyhead


@pytest.mark.parametrize(
    ("to", "name", "file"),
    [
        ("mar", "digits-1.0.mar", None),
        ("no-archive", "digits", "bundle/manifest.json"),
        ("triton", "digits", "1/model.onnx"),
    ],
)
def test_every_form_says_what_it_wrote(digits_bundle, tmp_path, to, name, file):
    result = run_polyhead("package", digits_bundle, "--to", to, "--out", tmp_path, "--json")
    said = json.loads(result.stdout)
    path = tmp_path / name
    written = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    assert said == {
        "bundle": str(digits_bundle),
        "model": "digits/1.0",
        "digest": Bundle.open(digits_bundle).digest,
        "to": to,
        "path": str(path),
        "bytes": sum(p.stat().st_size for p in written),
    }
    assert file is None or (path / file).is_file()
    refused = run_polyhead("package", digits_bundle, "--to", to, "--out", tmp_path, expect=1)
    assert refused.stderr == f"polyhead: {path} exists already: give another --out, or --force to replace it\n"


def test_a_precision_is_for_triton_and_must_be_there(digits_bundle, tmp_path):
    usage = run_polyhead(
        "package", digits_bundle, "--to", "mar", "--precision", "fp16", "--out", tmp_path, expect=2
    ).stderr
    assert "--precision is for --to triton" in usage
    refused = run_polyhead(
        "package", digits_bundle, "--to", "triton", "--precision", "int8", "--out", tmp_path, expect=1
    ).stderr
    assert refused == (
        "polyhead: bundle digits/1.0 has no fused ONNX graph in int8 (it has: fp32): "
        "ask for one of these, or export it with --format onnx --precision int8\n"
    )
    assert list(tmp_path.iterdir()) == []
