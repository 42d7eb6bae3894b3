"""A handler as TorchServe's documentation has it: derived from BaseHandler, TorchScript, answers as lists of dicts."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ts.torch_handler.base_handler import BaseHandler


class PeerHandler(BaseHandler):  # type: ignore[misc]
    """BaseHandler loads `model.pt`; what goes in and comes out is ours."""

    def initialize(self, context: Any) -> None:
        """Load the model, and what is known of its input and heads."""
        super().initialize(context)
        folder = Path(context.system_properties["model_dir"])
        self.task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
        self.tokenizer = None
        if self.task["format"] == "text":
            from tokenizers import Tokenizer

            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self.tokenizer.enable_truncation(self.task["max_length"])
            self.tokenizer.enable_padding()

    def preprocess(self, data: list[dict[str, Any]]) -> list[torch.Tensor]:
        """Bodies to tensors; remembers how many rows each body has."""
        bodies = [row.get("data") or row.get("body") for row in data]
        kind = self.task["format"]
        self.counts = [1] * len(bodies)
        if kind == "text":
            texts = [body if isinstance(body, str) else bytes(body).decode() for body in bodies]
            found = self.tokenizer.encode_batch(texts)  # type: ignore[attr-defined]
            return [torch.tensor([one.ids for one in found]), torch.tensor([one.attention_mask for one in found])]
        if kind == "jpeg":
            from PIL import Image

            images = [np.asarray(Image.open(io.BytesIO(body)).convert("RGB")) for body in bodies]
            return [torch.from_numpy(np.stack(images))]
        if kind == "json":
            parsed = [(body if isinstance(body, dict) else json.loads(body))["instances"] for body in bodies]
            self.counts = [len(part) for part in parsed]
            return [torch.tensor([row[self.task["input"]] for part in parsed for row in part])]
        shape = self.task["shape"]
        rows = [torch.frombuffer(bytearray(body), dtype=torch.float32).reshape(-1, *shape) for body in bodies]
        self.counts = [len(part) for part in rows]
        return [torch.cat(rows)]

    def inference(self, data: list[torch.Tensor], *_: Any, **__: Any) -> dict[str, torch.Tensor]:
        """One forward pass."""
        with torch.inference_mode():
            outputs = self.model(*(array.to(self.device) for array in data))
        return dict(zip(self.task["order"], outputs, strict=True))

    def postprocess(self, data: dict[str, torch.Tensor]) -> list[Any]:
        """Tensors to one answer a request."""
        columns = {name: self.column(head, data[name]) for name, head in self.task["heads"].items()}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        answers: list[Any] = []
        for count in self.counts:
            part, rows = rows[:count], rows[count:]
            answers.append(part[0] if count == 1 and self.task["format"] != "json" else {"predictions": part})
        return answers

    def column(self, head: dict[str, Any], output: torch.Tensor) -> list[dict[str, Any]]:
        """One head's answers."""
        if head["kind"] == "classification":
            scores, best = output.softmax(1).max(1)
            pairs = zip(best.tolist(), scores.tolist(), strict=True)
            return [{"label": head["labels"][i], "score": score, "index": i} for i, score in pairs]
        if head["kind"] == "multilabel":
            found = []
            for row in output.sigmoid().tolist():
                chosen = [i for i, score in enumerate(row) if score >= head["threshold"]]
                found.append({"labels": [head["labels"][i] for i in chosen], "scores": [row[i] for i in chosen]})
            return found
        if head["kind"] == "regression":
            return [{"value": value, "unit": head["unit"]} for value in output.reshape(-1).tolist()]
        return [{"vector": vector} for vector in output.tolist()]
