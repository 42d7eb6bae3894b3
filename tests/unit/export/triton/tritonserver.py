"""What Triton 26.06 does with a model folder, in Python: reads, checks and asks it.

The rules are those of `ValidateModelConfig` and `GenerateWarmupData` in triton-inference-server/core, and of
`ValidateInputs` and `ValidateOutputs` in triton-inference-server/onnxruntime_backend.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from polyhead.serving.golden import Array

ORT = {
    "TYPE_FP32": "tensor(float)",
    "TYPE_UINT8": "tensor(uint8)",
    "TYPE_INT64": "tensor(int64)",
    "TYPE_BOOL": "tensor(bool)",
}
BYTES = {"TYPE_FP32": 4, "TYPE_UINT8": 1, "TYPE_INT64": 8, "TYPE_BOOL": 1}


class Model:
    """A model that Triton has loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Refuses unknown fields, words and types.
        self.config = text_format.Parse((folder / "config.pbtxt").read_bytes(), ModelConfig())
        assert self.config.name == folder.name
        assert self.config.backend == "onnxruntime"
        assert [p.name for p in folder.iterdir() if p.is_dir() and p.name != "warmup"] == ["1"]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            folder / "1" / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        self._check_doors()
        self._check_batching()

    def _check_doors(self) -> None:
        assert len(self.config.input) == len(self.session.get_inputs())
        for said, there, exact in (
            (self.config.input, self.session.get_inputs(), False),
            (self.config.output, self.session.get_outputs(), True),
        ):
            found = {value.name: value for value in there}
            for door in said:
                value = found[door.name]
                assert len(door.dims) >= 1
                assert all(d == -1 or d >= 1 for d in door.dims)
                dims = list(door.reshape.shape) if door.HasField("reshape") else list(door.dims)
                if door.HasField("reshape"):
                    assert math.prod(door.dims) == math.prod(dims)
                shape = [d if isinstance(d, int) else -1 for d in value.shape]
                assert value.type == ORT[DataType.Name(door.data_type)]
                assert shape[0] == -1
                assert len(shape) == 1 + len(dims)
                assert all(m == d or (m == -1 and not exact) for m, d in zip(shape[1:], dims, strict=True))

    def _check_batching(self) -> None:
        assert self.config.max_batch_size > 1
        assert all(0 < size <= self.config.max_batch_size for size in self.config.dynamic_batching.preferred_batch_size)

    def labels(self, output: str) -> list[str]:
        """Of an output, as the classification extension looks them up."""
        (file,) = (door.label_filename for door in self.config.output if door.name == output)
        return (self.folder / file).read_text("utf-8").split("\n")[:-1] if file else []

    def parameter(self, key: str) -> str:
        return self.config.parameters[key].string_value

    def ask(self, rows: dict[str, Array]) -> dict[str, Array]:
        """Every output of the configuration for inputs of its shapes."""
        assert set(rows) == {door.name for door in self.config.input}
        feeds = {}
        for door in self.config.input:
            array = rows[door.name]
            assert len(array) <= self.config.max_batch_size
            assert len(array.shape) == 1 + len(door.dims)
            assert all(d in (-1, n) for d, n in zip(door.dims, array.shape[1:], strict=True))
            feeds[door.name] = array.reshape(len(array)) if door.HasField("reshape") else array
        names = [door.name for door in self.config.output]
        return dict(zip(names, self.session.run(names, feeds), strict=True))

    def warm_up(self) -> list[tuple[int, dict[str, Array]]]:
        """Run what the model must run before it is ready: batch size and one row of each sample."""
        ran = []
        for sample in self.config.model_warmup:
            rows = {}
            for name, value in sample.inputs.items():
                assert -1 not in value.dims
                kind = DataType.Name(value.data_type)
                data = (self.folder / "warmup" / value.input_data_file).read_bytes()
                assert len(data) == BYTES[kind] * math.prod(value.dims)
                dtype = {"TYPE_FP32": "<f4", "TYPE_INT64": "<i8"}.get(kind, "u1" if kind == "TYPE_UINT8" else "?")
                rows[name] = np.frombuffer(data, dtype).reshape(1, *value.dims)
            self.ask({name: np.repeat(row, sample.batch_size, axis=0) for name, row in rows.items()})
            ran.append((sample.batch_size, rows))
        return ran
