"""The table of what exports, and the cells it is made of; the attempts themselves take minutes and run on demand."""

import re

import pytest
import torch

from benchmarks import exports
from benchmarks.exports import COLUMNS, Cell, cell_words, reason, share_words, table
from benchmarks.networks import NETWORKS

REFUSED = Cell("refused", 0.4, reason="int8 graphs are ONNX graphs: add --format onnx")


@pytest.mark.parametrize(("share", "words"), [(1.0, "100 %"), (0.99999, "99.9 %"), (0.98, "98.0 %"), (0.0, "0.0 %")])
def test_a_share_of_decisions_is_never_rounded_up(share, words):
    assert share_words(share) == words


def test_a_cell_says_how_it_went():
    notes = {}
    assert cell_words(Cell("exported", 2.6, 3.81e-6), False, notes) == "3.8e-6 (3 s)"
    assert cell_words(Cell("exported", 0.2, 4.5e-3, 0.9995), True, notes) == "4.5e-3, 99.9 % (1 s)"
    assert cell_words(None, True, notes) == "not tried"
    assert notes == {}
    assert cell_words(REFUSED, True, notes) == cell_words(REFUSED, False, notes) == "no (1)"
    assert cell_words(Cell("broken", 1.0, reason="KeyError: 'x'"), True, notes) == "**error** (2)"
    assert notes == {REFUSED.reason: 1, "KeyError: 'x'": 2}


def test_a_reason_is_one_line_without_this_machines_folders_and_cut_between_words(tmp_path):
    assert reason(f"{tmp_path}/bundle-1 exists\nat {tmp_path}/x", (tmp_path,)) == "bundle-1 exists"
    words = reason("refused " * 100, ())
    assert words.endswith("refused …")
    assert len(words) <= exports.REASON + 2
    said = "graphs/fused-bf16.onnx cannot be proven (ONNX Runtime refuses graphs/fused-bf16.onnx: no Gemm(13) 'node_1')"
    assert reason(said, ()) == "graphs/fused-bf16.onnx cannot be proven"


def test_no_cell_is_empty_and_every_refusal_has_its_note():
    known = {name: dict.fromkeys(sum(COLUMNS, ()), Cell("exported", 1.0, 1e-6)) for name in NETWORKS}
    known["lstm"] = {}
    known["mlp"] |= {"ONNX bf16": Cell("refused", 1.0, reason="Gemm<T> has *no* kernel"), ".pt2 int8": REFUSED}
    text = table(known)
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) == len(COLUMNS) * (1 + len(NETWORKS))
    cells = [cell.strip() for row in rows for cell in row.strip("|").split("|")]
    assert "" not in cells
    assert cells.count("not tried") == len(sum(COLUMNS, ()))
    numbers = set(re.findall(r"no \((\d+)\)", text))
    assert numbers == set(re.findall(r"^(\d+)\. ", text, re.M)) == {"1", "2"}
    assert r"1. Gemm\<T\> has \*no\* kernel" in text


def test_a_real_network_is_exported_and_what_cannot_be_is_refused_in_words(tmp_path):
    torch.manual_seed(0)
    source = NETWORKS["module-dict"].source(tmp_path)
    done = exports._tried(exports._fused(source, "program", "fp32"), tmp_path / "done", False)
    assert (done.state, done.agreement, done.reason) == ("exported", 1.0, "")
    assert 0 <= done.largest < 1e-4
    refused = exports._tried(exports._fused(source, "torchscript", "int8"), tmp_path / "refused", False)
    assert (refused.state, refused.reason) == (REFUSED.state, REFUSED.reason)


def test_an_error_that_is_no_refusal_is_told_apart(tmp_path, capsys):
    def attempt(_out):
        raise KeyError("x")

    cell = exports._tried(attempt, tmp_path / "out", False)
    assert (cell.state, cell.reason) == ("broken", "'x'")
    assert "KeyError" in capsys.readouterr().err
