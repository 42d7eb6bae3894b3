"""The plot: its labels do not touch, and it can be drawn for one contender and for many."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.image import imread

from polyhead.export.timing.contenders import Contender
from polyhead.export.timing.plot import apart, drawn
from polyhead.export.timing.results import Results, summarised
from polyhead.serving.manifest import Precision

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")


@pytest.mark.parametrize("count", [1, 2, 5, 12, 40])
def test_labels_are_apart_in_order_and_inside(count: int):
    generator = np.random.default_rng(count)
    for _ in range(20):
        wanted = generator.uniform(0, 1, count).tolist()
        places = apart(wanted, 0.06)
        gap = min(0.06, 1 / max(1, count - 1))
        order = np.argsort(wanted)
        assert np.diff(np.array(places)[order]).min(initial=1) >= gap - 1e-9
        assert min(places) >= -1e-9
        assert max(places) <= 1 + 1e-9


def test_labels_with_room_stand_where_they_want():
    assert apart([0.9, 0.1, 0.5], 0.1) == [0.9, 0.1, 0.5]
    assert apart([0.5, 0.5], 0.2) == pytest.approx([0.4, 0.6])


@pytest.mark.parametrize(("devices", "batches"), [(["cpu"], (8,)), (["cpu", "cuda:0"], (1, 8, 64))])
def test_it_is_a_picture_of_every_device(devices, batches):
    order = []
    for device in devices:
        order.append(Contender("eager", "fp32", device))
        order += [Contender("onnxruntime", precision, device, f"fused-onnx-{precision}") for precision in PRECISIONS]
    times = {(who, batch): [[0.01 * batch], [0.011 * batch]] for who in order for batch in batches}
    results = Results(
        model="a model with a $name$ of some length/1.0",
        bundle="0" * 64,
        machines=dict.fromkeys(devices, "a machine of many words, 2 cores, torch 2.0"),
        threads=2,
        load=0.0,
        rounds=2,
        batches=batches,
        eager=None,
        timings=tuple(summarised(times, order, batches)),
        refused=(),
    )
    data = drawn(results)
    assert data == drawn(results)  # nothing of the moment is in it
    picture = imread(io.BytesIO(data))
    assert picture.shape[1] > 700
    assert picture.shape[0] > 300 * len(devices)
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 5
