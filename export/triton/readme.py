"""The README.md in a Triton model folder: what to send, what comes back, and what Triton leaves to the client."""

from __future__ import annotations

from collections.abc import Mapping

from polyhead.export.triton.config import VERSION, Door, labels_file
from polyhead.models.arrays import ArraySpec, array_specs
from polyhead.models.spec import (
    ClassificationHead,
    EmbeddingHead,
    HeadSpec,
    ImageInput,
    InputSpec,
    MultilabelHead,
    OneShotHead,
    RegressionHead,
    SegmentationHead,
    TensorInput,
    TextInput,
    TokensHead,
)
from polyhead.serving.bundle import Bundle
from polyhead.serving.manifest import Graph
from polyhead.serving.prototypes import prototypes_file

__all__ = ["readme"]


def readme(bundle: Bundle, graph: Graph, inputs: Mapping[str, Door], heads: Mapping[str, Door]) -> str:
    """The text, as Markdown.

    Args:
        bundle: whose model it is.
        graph: the graph that is served.
        inputs, heads: of the graph, by name.
    """
    spec, arrays = bundle.spec, array_specs(bundle.spec)
    takes = [(name, door, _meaning(arrays[name], spec.inputs[arrays[name].input])) for name, door in inputs.items()]
    gives = [(name, door, _reading(name, spec.heads[name])) for name, door in heads.items()]
    texts = any(isinstance(value, TextInput) for value in spec.inputs.values())
    return f"""# {spec.name} {spec.version}

Written by Polyhead from bundle {bundle.digest[:12]}, graph {graph.id} ({graph.precision}), for Triton's onnxruntime
backend. `parameters` in config.pbtxt say the same for programs.

## Inputs

{_table(("input", "datatype", "shape", "what it is"), takes)}
{TEXTS if texts else ""}
## Heads

Raw outputs: no softmax, no sigmoid, no threshold is applied. Ask for the heads you want as `outputs`; all come where
none is named, computed in one pass either way.

{_table(("output", "datatype", "shape", "how to read it"), gives)}

## What is left to you

- `intra_op_thread_count` and `instance_group`: by default an instance per GPU, or one with a thread per core.
- On a GPU, fp32 is not rounded to TF32, as the model was proven. Remove `use_tf32` for speed, and compare the answers.
- Triton 24.06 or newer: older ones refuse `use_tf32`.
{BATCHES if any(-1 in door.dims for door in inputs.values()) else ""}"""


TEXTS = f"""
A text becomes ids and mask at the client, by the library `tokenizers`. Texts of one request are padded with 0, in ids
and mask, to the longest of them.

    tokenizer = tokenizers.Tokenizer.from_file("{VERSION}/preprocess/<input>/tokenizer.json")
    tokenizer.no_truncation(), tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "[SEP]" in a text is five characters, no end of it
    ids = tokenizer.encode(text).ids
"""
BATCHES = "- Triton batches only requests whose free dimensions are equal: pad texts to few lengths, say 16, 32, 64.\n"


def _table(columns: tuple[str, ...], rows: list[tuple[str, Door, str]]) -> str:
    lines = [columns, ("---",) * len(columns)]
    for name, door, meaning in rows:
        shape = ", ".join("free" if d == -1 else str(d) for d in door.dims)
        lines.append((f"`{name}`", door.datatype, f"[batch, {shape}]", meaning.replace("|", "\\|")))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _meaning(array: ArraySpec, value: InputSpec) -> str:
    match value:
        case TextInput():
            what = "1 for each token, 0 for padding" if array.role == "mask" else "token ids, 0 for padding"
            cut = ", longer texts are cut" if value.truncate else ""
            return f"{what}; at most {value.max_length} tokens{cut}"
        case ImageInput():
            height, width = value.size
            return f"pixels 0…255 as they are, {value.channels}, {height} x {width}; resize: {value.resize}"
        case TensorInput():
            return (
                "numbers" if value.pad is None else f"numbers; shorter rows of a request are filled with {value.pad:g}"
            )


def _reading(name: str, head: HeadSpec) -> str:
    match head:
        case ClassificationHead():
            return f"logits of the labels in {labels_file(name)}; softmax gives scores"
        case MultilabelHead():
            values = head.threshold if isinstance(head.threshold, tuple) else (head.threshold,)
            threshold = ", ".join(f"{value:g}" for value in values)
            return f"logits of the labels in {labels_file(name)}; a label holds where its sigmoid reaches {threshold}"
        case RegressionHead():
            return f"value in {head.unit}" if head.unit else "value"
        case TokensHead():
            return f"logits of the labels in {labels_file(name)}, by token; 0 for padding"
        case SegmentationHead():
            return f"logits of the labels in {labels_file(name)}, by pixel"
        case EmbeddingHead():
            return "vector of length 1" if head.normalize else "vector"
        case OneShotHead():
            return f"vector; the nearest in {VERSION}/{prototypes_file(name)}, where enrolled, names the class"
