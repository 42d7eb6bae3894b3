"""The content of a Triton `config.pbtxt`: fields of `ModelConfig` in model_config.proto.

What is said here is what Triton and its onnxruntime backend check when they load a model: every input and output by
name, type and shape without the batch, an output's shape exactly as the graph has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from polyhead.export.triton.pbtxt import Field, Value, Word
from polyhead.models.spec import ClassificationHead, HeadSpec, InputSpec, Labelled, MultilabelHead, TextInput
from polyhead.serving.bundle import Bundle
from polyhead.serving.manifest import Graph
from polyhead.serving.settings import Settings

__all__ = ["MARK", "VERSION", "Door", "config_fields", "labels_file", "warmup_file"]

MARK = "# Written by polyhead package --to triton. Thread counts and instances are left to you: see README.md.\n"
VERSION = "1"  # Triton knows whole numbers only: the model's own version is a parameter
# By ONNX Runtime's name of a type.
TYPES = {
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(float16)": "FP16",
    "tensor(int64)": "INT64",
    "tensor(int32)": "INT32",
    "tensor(int8)": "INT8",
    "tensor(uint8)": "UINT8",
    "tensor(bool)": "BOOL",
}
KINDS = {"cpu": "KIND_CPU", "cuda": "KIND_GPU"}


@dataclass(frozen=True)
class Door:
    """An input or output of the graph.

    Attributes:
        type: ONNX Runtime's name of it.
        shape: of one row; None for a free dimension.
    """

    type: str
    shape: tuple[int | None, ...]

    @property
    def datatype(self) -> str:
        """As the Open Inference Protocol calls it."""
        return TYPES[self.type]

    @property
    def dims(self) -> tuple[int, ...]:
        """Of one row as clients send or get it: -1 is free, and one number is `[1]`, for Triton knows no scalars."""
        return tuple(-1 if d is None else d for d in self.shape) or (1,)


def labels_file(head: str) -> str:
    """Beside `config.pbtxt`."""
    return f"{head}_labels.txt"


def warmup_file(array: str) -> str:
    """In `warmup/`."""
    return f"{array}.bin"


def config_fields(
    bundle: Bundle,
    graph: Graph,
    inputs: Mapping[str, Door],
    heads: Mapping[str, Door],
    row: Mapping[str, Sequence[int]],
) -> list[Field]:
    """The configuration of a model.

    The packed output is left out: a client asks for heads by name, and only what it asks for leaves the device.

    Args:
        bundle: whose model it is.
        graph: the graph that is served.
        inputs, heads: of the graph, by name.
        row: the shape of the warm-up row by input, without the batch.
    """
    settings = Settings()
    return [
        ("name", bundle.spec.name),
        ("backend", "onnxruntime"),
        ("max_batch_size", settings.max_batch_size),
        *(("input", _door(name, door)) for name, door in inputs.items()),
        *(("output", [*_door(name, door), *_labels(name, bundle.spec.heads[name])]) for name, door in heads.items()),
        *((("instance_group", [("kind", Word(KINDS[graph.meant[0]]))]),) if len(graph.meant) == 1 else ()),
        (
            "dynamic_batching",
            [
                ("preferred_batch_size", (settings.max_batch_size,)),
                ("max_queue_delay_microseconds", settings.max_batch_delay * 1000),
            ],
        ),
        ("optimization", _accelerators()),
        *(("parameters", _parameter(key, text)) for key, text in _parameters(bundle, graph).items()),
        *(("model_warmup", _warmup(size, inputs, row)) for size in (1, settings.max_batch_size)),
    ]


def _door(name: str, door: Door) -> list[Field]:
    reshape: list[Field] = [] if door.shape else [("reshape", [("shape", ())])]
    return [("name", name), ("data_type", Word(f"TYPE_{door.datatype}")), ("dims", door.dims), *reshape]


def _labels(name: str, head: HeadSpec) -> list[Field]:
    """Triton's classification extension sorts one row's numbers: right for labels of a row, not of tokens or pixels."""
    return [("label_filename", labels_file(name))] if isinstance(head, ClassificationHead | MultilabelHead) else []


def _accelerators() -> list[Field]:
    """On a GPU, the arithmetic that the gate proved: ONNX Runtime would round fp32 to TF32."""
    options: list[Field] = [("parameters", [("key", "use_tf32"), ("value", "0")])]
    cuda: list[Field] = [("name", "cuda"), *options]
    return [("execution_accelerators", [("gpu_execution_accelerator", cuda)])]


def _parameter(key: str, text: str) -> list[Field]:
    return [("key", key), ("value", [("string_value", text)])]


def _parameters(bundle: Bundle, graph: Graph) -> dict[str, str]:
    return {
        # 1: heuristic, as it was proven. Triton's own choice tries every algorithm again for each new batch size.
        "cudnn_conv_algo_search": "1",
        "polyhead_model_version": bundle.spec.version,
        "polyhead_bundle": bundle.digest,
        "polyhead_graph": graph.id,
        "polyhead_precision": graph.precision,
        "polyhead_inputs": _json({name: _input(value) for name, value in bundle.spec.inputs.items()}),
        "polyhead_heads": _json({name: _head(name, head) for name, head in bundle.spec.heads.items()}),
    }


def _input(value: InputSpec) -> dict[str, object]:
    """What a client must know to make the arrays of it."""
    said = value.model_dump(mode="json")
    return {**said, "tokenizer": f"{VERSION}/{value.tokenizer}"} if isinstance(value, TextInput) else said


def _head(name: str, head: HeadSpec) -> dict[str, object]:
    """What a client must know to read its numbers. Labels stand in their own file."""
    said = head.model_dump(
        mode="json", exclude={"labels", "output"} | ({"description"} if not head.description else set())
    )
    return {**said, "labels": labels_file(name)} if isinstance(head, Labelled) else said


def _json(content: Mapping[str, object]) -> str:
    return json.dumps(content, ensure_ascii=False)


def _warmup(size: int, inputs: Mapping[str, Door], row: Mapping[str, Sequence[int]]) -> list[Field]:
    """A batch of one row again and again, before the model counts as ready."""
    said: list[Field] = [("name", "one row" if size == 1 else f"a batch of {size} rows"), ("batch_size", size)]
    for name, door in inputs.items():
        dims: Value = tuple(row[name]) or (1,)
        value: list[Field] = [("data_type", Word(f"TYPE_{door.datatype}")), ("dims", dims)]
        value.append(("input_data_file", warmup_file(name)))
        said.append(("inputs", [("key", name), ("value", value)]))
    return said
