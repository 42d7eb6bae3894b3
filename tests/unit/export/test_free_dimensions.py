"""Free dimensions the whole way: networks exported, proven, and asked over the wire; each row is answered as alone."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from polyhead.export.assemble import export
from polyhead.export.errors import ParityError
from polyhead.export.samples import random_samples
from polyhead.export.source import Source
from polyhead.models.spec import ModelSpec
from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine
from polyhead.serving.request import HttpRequest, HttpResponse
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings

OCTETS = "application/octet-stream"
KIND = {"kind": "classification", "labels": ["rest", "walk", "run"]}
LEVEL = {"kind": "regression", "unit": "m"}


@dataclass(frozen=True)
class Exported:
    """A bundle beside the network it was made of."""

    bundle: Bundle
    network: nn.Module

    def responder(self, runtime: str = "onnxruntime", **settings: Any) -> Responder:
        return Responder(Engine.load(self.bundle, runtime, "cpu"), Settings(**settings))


def exported(
    folder: Path,
    network: nn.Module,
    inputs: dict[str, Any],
    heads: dict[str, Any],
    formats: Sequence[Any] = ("onnx",),
) -> Exported:
    spec = ModelSpec.parse({"name": "free", "version": "1", "inputs": inputs, "heads": heads})
    made = Source(network.eval(), spec, random_samples(spec))
    bundle, _ = export(made, folder / "bundle", formats, apart=False)
    return Exported(bundle, network)


def _json(instances: Sequence[Any], heads: Sequence[str] | None = None, **options: Any) -> HttpRequest:
    body = {"instances": instances, "heads": heads, "options": options}
    return HttpRequest(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), "application/json")


def _rows(response: HttpResponse) -> list[dict[str, Any]]:
    assert response.status == 200, response.body
    body = orjson.loads(response.body)
    return list(body["predictions"]) if set(body) == {"predictions"} else [body]


def _assert_as_alone(responder: Responder, requests: Sequence[HttpRequest], alone: Sequence[HttpRequest]) -> None:
    """Every row of several requests, answered in one batch, is what that row gets in a batch of its own."""
    together = [row for response in responder.respond(requests) for row in _rows(response)]
    apart = [row for request in alone for row in _rows(responder.respond([request])[0])]
    assert len(together) == len(apart)
    for one, other in zip(together, apart, strict=True):
        _assert_close(one, other)


def _assert_close(one: Any, other: Any) -> None:
    """The same answer: words and whole numbers exactly, others as far as the order of a sum may change them."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            _assert_close(one[key], other[key])
    elif isinstance(one, list) and one and isinstance(one[0], str | dict):
        for element, same in zip(one, other, strict=True):
            _assert_close(element, same)
    elif isinstance(one, list):
        np.testing.assert_equal(np.shape(one), np.shape(other))
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-4)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-5, rel=1e-4)
    else:
        assert one == other


# Steps


class Lstm(nn.Module):
    """What a sequence ends in, and what it is on average."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.LSTM(6, 8, batch_first=True)
        self.kind = nn.Linear(8, 3)
        self.level = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features, _ = self.trunk(x)
        return {"kind": self.kind(features[:, -1]), "level": self.level(features.mean(1))}


@pytest.fixture(scope="module")
def lstm(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(1)
    inputs = {"x": {"kind": "tensor", "shape": ["steps", 6], "lengths": {"steps": [1, 64]}}}
    formats = ("onnx", "torchscript", "program")
    return exported(tmp_path_factory.mktemp("lstm"), Lstm(), inputs, {"kind": KIND, "level": LEVEL}, formats)


def _sequences(*lengths: int) -> list[np.ndarray]:
    generator = np.random.default_rng(5)
    return [generator.standard_normal((steps, 6)).astype(np.float32) for steps in lengths]


@pytest.mark.parametrize("runtime", ["onnxruntime", "torchscript", "program"])
def test_sequences_of_any_length_are_answered_as_alone_and_as_by_the_network(lstm: Exported, runtime: str):
    responder = lstm.responder(runtime)
    rows = _sequences(5, 64, 5, 1, 2, 64, 5)
    requests = [_json(rows[:3]), HttpRequest(rows[3].tobytes(), OCTETS), _json(rows[4:])]
    forwards = responder.engine.forwards
    answers = [row for response in responder.respond(requests) for row in _rows(response)]
    assert responder.engine.forwards - forwards == 4  # of 5, 64, 1 and 2 steps
    with torch.no_grad():
        expected = [lstm.network(torch.from_numpy(row)[None]) for row in rows]
    for answer, outputs in zip(answers, expected, strict=True):
        assert answer["kind"]["index"] == int(outputs["kind"].argmax())
        assert answer["level"]["value"] == pytest.approx(outputs["level"].item(), abs=1e-5)
    _assert_as_alone(responder, requests, [_json([row]) for row in rows])


def test_a_sequence_out_of_bounds_is_refused_alone(lstm: Exported):
    (long,) = _sequences(65)
    good = _json(_sequences(3))
    bad, data, answered = lstm.responder().respond([_json([*_sequences(2), long]), HttpRequest(b"", OCTETS), good])
    assert (bad.status, data.status, answered.status) == (422, 422, 200)
    assert orjson.loads(bad.body) == {
        "error": "input 'x': steps is 65, the model takes 1 to 64: cut the row, or send it in parts",
        "type": "invalid_instance",
        "loc": ["instances", 1, "x"],
    }


class Masked(nn.Module):
    """The mean over the steps that a mask lets through; or, where it is not told, over all of them."""

    def __init__(self, told: bool = True) -> None:
        super().__init__()
        self.told = told
        self.trunk = nn.Conv1d(4, 8, 3, padding=1)
        self.level = nn.Linear(8, 1)

    def forward(self, x: Tensor, mask: Tensor) -> dict[str, Tensor]:
        features = torch.relu(self.trunk(x.transpose(1, 2))).transpose(1, 2)
        valid = (mask if self.told else torch.ones_like(mask)).unsqueeze(2).to(features.dtype)
        return {"level": self.level((features * valid).sum(1) / valid.sum(1))}


PADDED = {
    "x": {"kind": "tensor", "shape": ["steps", 4], "pad": 0, "lengths": {"steps": [2, 32]}},
    "mask": {"kind": "tensor", "dtype": "bool", "shape": ["steps"], "pad": 0},
}


def test_sequences_that_are_filled_up_are_one_pass_and_answered_as_alone(tmp_path: Path):
    torch.manual_seed(2)
    responder = exported(tmp_path, Masked(), PADDED, {"level": LEVEL}).responder()
    generator = np.random.default_rng(3)
    rows = [
        {"x": generator.standard_normal((steps, 4)).astype(np.float32), "mask": [True] * steps}
        for steps in (2, 32, 7, 7, 31)
    ]
    requests = [_json(rows[:2]), _json(rows[2:])]
    responder.respond(requests)
    assert responder.engine.forwards == 1
    _assert_as_alone(responder, requests, [_json([row]) for row in rows])
    small = Responder(responder.engine, Settings(max_input_bytes=7 * 20 * 2))  # two rows of 7 steps
    _assert_as_alone(small, requests, [_json([row]) for row in rows])


def test_a_network_that_is_not_told_the_lengths_may_not_be_filled_up(tmp_path: Path):
    with pytest.raises(ParityError, match=r"row alone against row in batch.*give the network the lengths"):
        exported(tmp_path, Masked(told=False), PADDED, {"level": LEVEL})


class Two(nn.Module):
    """What two sequences of lengths of their own have in common, scaled by a number."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(3, 8)
        self.level = nn.Linear(8, 1)

    def forward(self, a: Tensor, b: Tensor, scale: Tensor) -> dict[str, Tensor]:
        one, two = self.trunk(a), self.trunk(b.to(torch.float32))
        common = torch.softmax(one @ two.transpose(1, 2), dim=2) @ two
        return {"level": self.level(common.mean(1)) * scale.unsqueeze(1)}


def test_two_inputs_have_lengths_of_their_own(tmp_path: Path):
    torch.manual_seed(3)
    inputs = {
        "a": {"kind": "tensor", "shape": ["n", 3], "lengths": {"n": [1, 20]}},
        "b": {"kind": "tensor", "dtype": "int32", "shape": ["m", 3], "lengths": {"m": [1, 30]}},
        "scale": {"kind": "tensor", "shape": []},
    }
    responder = exported(tmp_path, Two(), inputs, {"level": LEVEL}).responder()
    generator = np.random.default_rng(4)
    rows = [
        {
            "a": generator.standard_normal((n, 3)).astype(np.float32),
            "b": generator.integers(-2, 3, (m, 3)),
            "scale": 2.0,
        }
        for n, m in [(2, 9), (9, 2), (2, 9), (20, 30), (1, 1)]
    ]
    _assert_as_alone(responder, [_json(rows[:2]), _json(rows[2:])], [_json([row]) for row in rows])


# Pixels


class Fields(nn.Module):
    """A label for each pixel, one for each square of four, and one for the picture; a large gain makes infinities."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 6, 3, padding=1)
        self.ground = nn.Conv2d(6, 3, 1)
        self.coarse = nn.Conv2d(6, 2, 2, stride=2)
        self.wet = nn.Linear(6, 2)

    def forward(self, image: Tensor, gain: Tensor) -> dict[str, Tensor]:
        features = torch.relu(self.trunk(image.to(torch.float32) / 255))
        wet = self.wet(features.mean((2, 3)))
        return {
            "ground": self.ground(features) * 9 * gain[:, None, None, None],
            "coarse": self.coarse(features) * 9,
            "wet": wet,
        }


GROUND = ("grass", "road", "water")
FIELDS = {
    "ground": {"kind": "segmentation", "labels": list(GROUND)},
    "coarse": {"kind": "segmentation", "labels": ["no", "yes"]},
    "wet": {"kind": "classification", "labels": ["no", "yes"]},
}
SIZES = [(4, 6), (6, 4), (4, 6), (31, 4), (5, 5), (40, 40)]


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(4)
    shape = {"shape": [3, "height", "width"], "lengths": {"height": [4, 300], "width": [4, 40]}}
    image = {"kind": "tensor", "dtype": "uint8", **shape}
    inputs = {"image": image, "gain": {"kind": "tensor", "shape": []}}
    return exported(tmp_path_factory.mktemp("fields"), Fields(), inputs, FIELDS)


def _picture(pixels: np.ndarray, gain: float = 1) -> dict[str, Any]:
    return {"image": pixels, "gain": gain}


@pytest.fixture(scope="module")
def pictures() -> list[dict[str, Any]]:
    generator = np.random.default_rng(6)
    return [_picture(generator.integers(0, 256, (3, *size), dtype=np.uint8)) for size in SIZES]


def test_masks_of_rows_of_several_sizes_are_of_their_rows_own_size(fields: Exported, pictures: list[dict[str, Any]]):
    responder = fields.responder()
    requests = [_json(pictures[:4], raw=True), _json(pictures[4:], raw=True)]
    answers = [row for response in responder.respond(requests) for row in _rows(response)]
    for answer, picture, (height, width) in zip(answers, pictures, SIZES, strict=True):
        with torch.no_grad():
            outputs = fields.network(torch.from_numpy(picture["image"])[None], torch.ones(1))
        assert answer["ground"]["size"] == [height, width]
        assert answer["coarse"]["size"] == [height // 2, width // 2]
        for head in ("ground", "coarse"):
            expected = outputs[head][0].numpy()
            raw = np.array(answer[head]["raw"], np.float32)
            np.testing.assert_allclose(raw, expected, atol=1e-4, rtol=1e-4)
            runs = np.array(answer[head]["runs"])
            mask = np.repeat(runs[:, 0], runs[:, 1]).reshape(answer[head]["size"])
            np.testing.assert_array_equal(mask, raw.argmax(axis=0))
            areas = [float((mask == FIELDS[head]["labels"].index(label)).mean()) for label in answer[head]["labels"]]
            assert answer[head]["areas"] == pytest.approx(areas)
    _assert_as_alone(responder, requests, [_json([picture], raw=True) for picture in pictures])


def test_masks_of_several_sizes_are_pngs_of_their_own_size(fields: Exported, pictures: list[dict[str, Any]]):
    responder = fields.responder()
    (response,) = responder.respond([_json(pictures, ["ground", "wet"], mask="png")])
    for answer, (height, width) in zip(_rows(response), SIZES, strict=True):
        image = Image.open(io.BytesIO(base64.b64decode(answer["ground"]["png"])))
        assert image.size == (width, height)
        assert set(np.unique(np.asarray(image))) == {GROUND.index(label) for label in answer["ground"]["labels"]}


def test_masks_that_are_no_one_array_are_refused_alone_and_counted(fields: Exported, pictures: list[dict[str, Any]]):
    responder, records = fields.responder(), []
    responder.observe = records.append
    asked = _json(pictures, ["ground"])
    asked.headers = {"accept": "application/x-npy"}
    refused, answered = responder.respond([asked, _json(pictures, ["ground"])])
    assert (refused.status, orjson.loads(refused.body)["type"], answered.status) == (406, "not_acceptable", 200)
    assert (responder.failures, records[0].failures) == (1, {"not_acceptable": 1})


def test_a_mask_that_is_not_finite_fails_alone_and_names_its_row(fields: Exported, pictures: list[dict[str, Any]]):
    bad = [*pictures[:2], _picture(pictures[2]["image"], 3e38), *pictures[3:]]
    refused, answered, light = fields.responder().respond([_json(bad), _json(pictures), _json(bad, ["wet", "coarse"])])
    assert (refused.status, answered.status, light.status) == (422, 200, 200)
    error = orjson.loads(refused.body)
    assert (error["type"], error["loc"]) == ("answer_not_finite", ["instances", 2])
    assert error["error"].startswith("head 'ground' answered NaN or infinity for this row")


def _bytes(size: tuple[int, int]) -> int:
    """Of both masks of a picture."""
    return 4 * (3 * size[0] * size[1] + 2 * (size[0] // 2) * (size[1] // 2))


@pytest.mark.parametrize("sizes", [[(4, 6)], [(300, 40), (4, 4)], [(300, 4), (16, 17), (64, 8)]])
def test_what_masks_of_several_sizes_take_is_known_beforehand(fields: Exported, sizes: list[tuple[int, int]]):
    pixels = [_picture(np.zeros((3, *size), np.uint8)) for size in sizes]
    needed = sum(_bytes(size) for size in sizes)
    (taken,) = fields.responder(max_dense_bytes=int(needed * 1.1)).respond([_json(pixels)])
    assert taken.status == 200
    (refused,) = fields.responder(max_dense_bytes=int(needed * 0.9)).respond([_json(pixels)])
    assert refused.status == 413
    size = int(orjson.loads(refused.body)["error"].split(" are ")[1].split()[0])
    assert size == pytest.approx(needed, rel=0.1)


def test_masks_that_are_too_large_together_are_answered_in_turn(fields: Exported, pictures: list[dict[str, Any]]):
    apart, together = fields.responder(max_dense_bytes=2 * _bytes((4, 6))), fields.responder()
    requests = [_json([pictures[index]]) for index in (0, 2, 1, 0)]  # each of as many pixels
    for one, other in zip(apart.respond(requests), together.respond(requests), strict=True):
        _assert_close(_rows(one), _rows(other))
    assert apart.engine.forwards - together.engine.forwards == 1
    (light,) = fields.responder(max_dense_bytes=8).respond([_json(pictures, ["wet"])])  # no mask is asked for
    assert len(_rows(light)) == len(pictures)
