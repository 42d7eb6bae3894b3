"""What every peer does with a batch: bodies in, one forward pass of ONNX Runtime, JSON answers out.

Written as the peers' own best practice has it: one session, `np.frombuffer` over the joined bodies, arithmetic over the
whole batch, orjson. Runs in the peers' environments: numpy, orjson and onnxruntime, and what a workload's input needs.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson

__all__ = ["Work", "answers", "reader"]

Array = np.ndarray[Any, Any]
Read = Callable[[Sequence[bytes]], tuple[list[Array], list[int]]]


class Work:
    """A model and the requests it gets.

    Args:
        folder: holds `task.json` and `model.onnx`.
        threads: of one forward pass.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self.task: dict[str, Any] = json.loads((folder / "task.json").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.read = reader(self.task, folder)
        self.listed = self.task["format"] == "json"  # JSON asks for a list even of one row
        self.heads = list(self.task["heads"].items())

    def answer(self, bodies: Sequence[bytes]) -> list[bytes]:
        """One answer per body, from one forward pass."""
        arrays, counts = self.read(bodies)
        outputs = self.session.run(
            [name for name, _ in self.heads], dict(zip(self.task["arrays"], arrays, strict=True))
        )
        rows = answers(self.heads, outputs)
        result, start = [], 0
        for count in counts:
            part = rows[start : start + count]
            start += count
            content = part[0] if count == 1 and not self.listed else {"predictions": part}
            result.append(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))
        return result


def answers(heads: Sequence[tuple[str, dict[str, Any]]], outputs: Sequence[Array]) -> list[dict[str, Any]]:
    """Every head's answer to every row, by head."""
    columns = [COLUMNS[head["kind"]](head, output) for (_, head), output in zip(heads, outputs, strict=True)]
    names = [name for name, _ in heads]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def classification(head: dict[str, Any], logits: Array) -> list[dict[str, Any]]:
    """The likeliest label and its probability."""
    labels, best = head["labels"], logits.argmax(axis=1)
    scores = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
    pairs = zip(best.tolist(), scores.tolist(), strict=True)
    return [{"label": labels[index], "score": score, "index": index} for index, score in pairs]


def multilabel(head: dict[str, Any], logits: Array) -> list[dict[str, Any]]:
    """The labels that reach the threshold, with their probabilities."""
    labels, scores = head["labels"], 1 / (1 + np.exp(-logits))
    chosen = scores >= np.asarray(head["threshold"], dtype=np.float32)
    return [
        {"labels": [labels[i] for i in np.flatnonzero(row).tolist()], "scores": score[row]}
        for row, score in zip(chosen, scores, strict=True)
    ]


def regression(head: dict[str, Any], values: Array) -> list[dict[str, Any]]:
    """The value, in its unit."""
    unit = head["unit"]
    return [{"value": value, "unit": unit} for value in values.reshape(-1).tolist()]


def embedding(_head: dict[str, Any], vectors: Array) -> list[dict[str, Any]]:
    """The vector."""
    return [{"vector": vector} for vector in vectors]


COLUMNS = {
    "classification": classification,
    "multilabel": multilabel,
    "regression": regression,
    "embedding": embedding,
}


def reader(task: dict[str, Any], folder: Path) -> Read:
    """Reads bodies of the task's format: to the arrays of the graph and the rows of each body."""
    if task["format"] == "octets":
        return lambda bodies: octets(bodies, task["shape"])
    if task["format"] == "json":
        return lambda bodies: instances(bodies, task["input"])
    if task["format"] == "jpeg":
        return lambda bodies: pictures(bodies, task["size"])
    return texts(folder / "tokenizer.json", task["max_length"])


def octets(bodies: Sequence[bytes], shape: Sequence[int]) -> tuple[list[Array], list[int]]:
    """Little-endian floats, one row or more a body."""
    size = 4 * int(np.prod(shape))
    return [np.frombuffer(b"".join(bodies), "<f4").reshape(-1, *shape)], [len(body) // size for body in bodies]


def instances(bodies: Sequence[bytes], name: str) -> tuple[list[Array], list[int]]:
    """`{"instances": [{name: [numbers]}]}`."""
    parsed = [orjson.loads(body)["instances"] for body in bodies]
    rows = [row[name] for part in parsed for row in part]
    return [np.array(rows, dtype=np.float32)], [len(part) for part in parsed]


def pictures(bodies: Sequence[bytes], size: Sequence[int]) -> tuple[list[Array], list[int]]:
    """One JPEG a body, to uint8 `[rows, height, width, 3]`."""
    from PIL import Image

    rows = []
    for body in bodies:
        image = Image.open(io.BytesIO(body)).convert("RGB")
        if image.size != (size[1], size[0]):
            image = image.resize((size[1], size[0]))
        rows.append(np.asarray(image))
    return [np.stack(rows)], [1] * len(bodies)


def texts(tokenizer: Path, max_length: int) -> Read:
    """One text in UTF-8 a body, to ids and mask, padded to the longest of the batch."""
    from tokenizers import Tokenizer

    fast = Tokenizer.from_file(str(tokenizer))
    fast.enable_truncation(max_length)
    fast.enable_padding()

    def read(bodies: Sequence[bytes]) -> tuple[list[Array], list[int]]:
        found = fast.encode_batch([bytes(body).decode() for body in bodies])
        ids = np.array([one.ids for one in found], dtype=np.int64)
        mask = np.array([one.attention_mask for one in found], dtype=np.int64)
        return [ids, mask], [1] * len(bodies)

    return read
