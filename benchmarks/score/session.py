"""What a user writes around ONNX Runtime to score a batch: no line of Polyhead's.

Texts are filled up to the longest of the batch, as the tokenizers library does it. Of every head the answer that a
table wants: a label, labels, a number, a vector, a label a token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

__all__ = ["Model"]

Array = np.ndarray[Any, Any]
TEXT_BATCH = 256  # rows of a batch of texts: what a user takes who does not count tokens


class Model:
    """A session and its tokenizer.

    Args:
        folder: with `task.json`, and the bundle, of which only the graph and the tokenizer's file are read.
        threads: of one forward pass.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self.task: dict[str, Any] = json.loads((folder / "task.json").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(folder / "bundle" / self.task["graph"]), options, providers=["CPUExecutionProvider"]
        )
        self.column: str = self.task["column"]
        self.heads: Mapping[str, Mapping[str, Any]] = self.task["heads"]
        self.batch_rows: int = TEXT_BATCH if self.task["text"] else self.task["batch_rows"]
        if self.task["text"]:
            from tokenizers import Tokenizer

            self.tokenizer = Tokenizer.from_file(str(folder / "bundle" / self.task["tokenizer"]))
            self.tokenizer.enable_padding()
            self.tokenizer.enable_truncation(self.task["max_length"])

    def answers(self, values: Any) -> dict[str, Any]:
        """A column by head: `values` are texts, or numbers `[rows, …]`."""
        if self.task["text"]:
            encoded = self.tokenizer.encode_batch(list(values))
            arrays: Sequence[Array] = [
                np.array([one.ids for one in encoded], np.int64),
                np.array([one.attention_mask for one in encoded], np.int64),
            ]
        else:
            arrays = [np.ascontiguousarray(values, np.float32)]
        outputs = self.session.run(list(self.heads), dict(zip(self.task["arrays"], arrays, strict=True)))
        return {name: _column(head, output) for (name, head), output in zip(self.heads.items(), outputs, strict=True)}


def _column(head: Mapping[str, Any], output: Array) -> Any:
    match head["kind"]:
        case "classification":
            return np.asarray(head["labels"])[output.argmax(axis=1)]
        case "multilabel":
            chosen = 1 / (1 + np.exp(-output)) >= np.asarray(head["threshold"], np.float32)
            return [[head["labels"][i] for i in np.flatnonzero(row)] for row in chosen]
        case "tokens":
            return [row.tolist() for row in output.argmax(axis=2).astype(np.int16)]
        case "regression":
            return output.reshape(-1)
        case _:
            return list(output)
