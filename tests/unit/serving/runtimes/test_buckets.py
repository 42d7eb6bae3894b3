"""Recorded passes: buckets, filling, cutting, keeping, and whose memory an answer is. On the CPU, where a recording is
the program called again; everything around it is the code that runs CUDA graphs.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from polyhead.export.assemble import export
from polyhead.export.source import Source, random_samples
from polyhead.models.spec import ModelSpec
from polyhead.serving.golden import Array
from polyhead.serving.runtimes import base
from polyhead.serving.runtimes.buckets import Buckets, Recordable, bucket
from polyhead.serving.runtimes.recording import NotRecordable, Recording
from polyhead.serving.runtimes.tensors import TensorRuntime, as_tensor

SPEC = ModelSpec.parse(
    {
        "name": "readings",
        "version": "1",
        "inputs": {
            "steps": {"kind": "tensor", "shape": ["steps", 6]},
            "code": {"kind": "tensor", "dtype": "int64", "shape": [2]},
        },
        "heads": {"kind": {"kind": "classification", "labels": ["a", "b", "c"]}, "size": {"kind": "regression"}},
    }
)
PACKED = "polyhead_packed"


class Readings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.codes = nn.Linear(6, 8), nn.Embedding(5, 8)
        self.kind, self.size = nn.Linear(8, 3), nn.Linear(8, 1)

    def forward(self, steps, code):
        features = self.trunk(steps).relu().mean(1) + self.codes(code.remainder(5)).sum(1)
        return {"kind": self.kind(features), "size": self.size(features)}


class Direct:
    """Records by remembering the call; a replay overwrites the same outputs, as a CUDA graph's does."""

    device, pinned = torch.device("cpu"), False

    def __init__(self, function: Callable[..., Sequence[Tensor]], limit: int = 1 << 30, room: bool = True) -> None:
        self.function, self.limit, self.room = function, limit, room
        self.recorded: list[tuple[int, ...]] = []
        self.waits = 0
        self.pinned_arrays: list[Array] = []
        self.direct = 0

    def running(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def record(self, inputs: Sequence[Tensor]) -> Recording:
        self.recorded.append(tuple(inputs[0].shape[:2]))
        return Called(self.function, inputs)

    def wait(self) -> None:
        self.waits += 1

    def is_pinned(self, tensor: Tensor) -> bool:
        places = [array.ctypes.data for array in self.pinned_arrays]
        self.direct += tensor.data_ptr() in places
        return tensor.data_ptr() in places


class Called:
    def __init__(self, function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> None:
        self.function, self.inputs = function, inputs
        self.outputs = [output.clone() for output in function(*inputs)]

    def replay(self) -> None:
        for output, value in zip(self.outputs, self.function(*self.inputs), strict=True):
            output.copy_(value)


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> TensorRuntime:
    source = Source(Readings(), SPEC, random_samples(SPEC))
    bundle = export(source, tmp_path_factory.mktemp("bundles") / "readings", ["program"])[0]
    graph = bundle.manifest.graph("fused-program")
    assert base.fetched(graph) == (PACKED,)
    loaded = base.load("program", graph, bundle.graph_files(graph), "cpu", 1)
    assert isinstance(loaded, TensorRuntime)
    return loaded


def packed_only(program: TensorRuntime) -> Callable[..., Sequence[Tensor]]:
    def function(*tensors: Tensor) -> list[Tensor]:
        return [torch.from_numpy(program.run([tensor.numpy() for tensor in tensors], [PACKED])[0])]

    return function


def made(program: TensorRuntime, recorder: Direct | None = None, **bounds: int) -> tuple[Buckets, Direct]:
    recorder = recorder or Direct(packed_only(program))
    return Buckets(program.run, recorder, {PACKED: 0}, **bounds), recorder


def rows(count: int, steps: int = 4, seed: int = 0) -> list[Array]:
    generator = np.random.default_rng(seed)
    numbers = generator.standard_normal((count, steps, 6)).astype(np.float32)
    return [numbers, generator.integers(0, 100, (count, 2))]


@given(st.integers(1, 5000))
def test_a_bucket_holds_its_rows_and_wastes_little(count: int):
    size = bucket(count)
    assert count <= size < 2 * count or count == size == 1
    assert bucket(size) == size
    assert size & (size - 1) == 0 if size <= 16 else size % 8 == 0
    if count > 32:
        assert size < 1.25 * count


def test_the_buckets_of_a_batch_of_64_requests():
    assert sorted({bucket(count) for count in range(1, 65)}) == [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64]


@pytest.fixture(scope="module")
def busy(program: TensorRuntime) -> Buckets:
    """Kept for many examples, so that each finds what the ones before it left behind."""
    return made(program, kept=6)[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(1, 70), st.integers(1, 4)), min_size=1, max_size=4), st.integers(0, 1000))
def test_any_rows_in_any_order_are_answered_as_by_a_plain_pass(program, busy, shapes, seed):
    for count, steps in shapes:
        inputs = rows(count, steps, seed)
        for _ in range(3):  # first seen, recorded, replayed
            (answer,) = busy.run(inputs, [PACKED])
            np.testing.assert_allclose(answer, program.run(inputs, [PACKED])[0], rtol=1e-4, atol=1e-5)
            assert answer.shape == (count, 4)
    assert busy.mode == "cuda graphs"
    assert busy.recorded <= 6


def test_a_shape_is_recorded_when_it_comes_back_and_replayed_from_then_on(program):
    buckets, recorder = made(program)
    for _ in range(5):
        buckets.run(rows(5), [PACKED])
    assert recorder.recorded == [(8, 4)]
    assert buckets.replays == 3
    buckets.run(rows(7), [PACKED])  # the same bucket
    assert (buckets.replays, recorder.recorded) == (4, [(8, 4)])
    for _ in range(2):
        buckets.run(rows(7, steps=5), [PACKED])  # another length
    assert recorder.recorded == [(8, 4), (8, 5)]


def test_shapes_that_never_come_back_are_never_recorded(program):
    buckets, recorder = made(program)
    for steps in range(1, 40):
        buckets.run(rows(1, steps), [PACKED])
    assert (recorder.recorded, buckets.recorded) == ([], 0)


def test_the_pass_that_was_not_used_for_longest_goes_first(program):
    buckets, recorder = made(program, kept=2)
    for steps in (1, 2):
        for _ in range(2):
            buckets.run(rows(1, steps), [PACKED])
    buckets.run(rows(1, 1), [PACKED])
    for _ in range(2):
        buckets.run(rows(1, 3), [PACKED])  # in place of the second
    before = buckets.replays
    for steps in (1, 3):
        buckets.run(rows(1, steps), [PACKED])
    assert buckets.replays == before + 2
    buckets.run(rows(1, 2), [PACKED])
    assert recorder.recorded == [(1, 1), (1, 2), (1, 3), (1, 2)]
    assert buckets.recorded == 2


def test_fixed_inputs_stay_below_the_devices_limit(program):
    size = sum(array.nbytes for array in rows(16))
    buckets, recorder = made(program, Direct(packed_only(program), limit=2 * size))
    for count in (16, 8, 4):
        for _ in range(2):
            buckets.run(rows(count), [PACKED])
    assert buckets.recorded == 3
    for _ in range(2):
        buckets.run(rows(15, steps=8), [PACKED])  # needs more than is left: all the others go
    assert buckets.recorded == 1
    for _ in range(2):
        buckets.run(rows(15, steps=9), [PACKED])  # needs more than there is
    assert (buckets.recorded, len(recorder.recorded)) == (1, 4)


def test_nothing_is_recorded_where_there_is_no_room(program):
    buckets, recorder = made(program, Direct(packed_only(program), room=False))
    for _ in range(3):
        np.testing.assert_array_equal(buckets.run(rows(3), [PACKED])[0], program.run(rows(3), [PACKED])[0])
    assert (recorder.recorded, buckets.recorded, buckets.mode) == ([], 0, "cuda graphs")


def test_a_pass_that_the_device_had_no_memory_for_is_answered_all_the_same(program, caplog):
    class Full(Direct):
        def record(self, inputs: Sequence[Tensor]) -> Recording:
            if self.recorded:
                raise torch.OutOfMemoryError("tried to allocate 2 GiB")
            return super().record(inputs)

    buckets, recorder = made(program, Full(packed_only(program)))
    with caplog.at_level(logging.WARNING):
        for count in (1, 3):
            for _ in range(4):
                answer = buckets.run(rows(count), [PACKED])[0]
                np.testing.assert_allclose(answer, program.run(rows(count), [PACKED])[0], rtol=1e-4, atol=1e-5)
    assert caplog.messages == [
        "no further pass is recorded, for the device has no memory left: tried to allocate 2 GiB"
    ]
    assert (buckets.recorded, buckets.mode, buckets.replays) == (1, "cuda graphs", 2)
    assert recorder.recorded == [(1, 4)]


def test_no_answer_changes_when_others_follow(program):
    buckets, _ = made(program)
    for _ in range(2):
        buckets.run(rows(8), [PACKED])
    answers = [buckets.run(rows(count, seed=count), [PACKED])[0] for count in (8, 5, 7)]
    kept = [answer.copy() for answer in answers]
    buckets.run([array * 0 for array in rows(8)], [PACKED])
    for answer, before in zip(answers, kept, strict=True):
        np.testing.assert_array_equal(answer, before)
        assert answer.flags.owndata
        assert answer.flags.writeable
    np.testing.assert_allclose(answers[1], program.run(rows(5, seed=5), [PACKED])[0], rtol=1e-4, atol=1e-5)


def test_rows_beyond_the_real_ones_are_the_first_row(program):
    seen: list[Array] = []

    def watched(*tensors: Tensor) -> Sequence[Tensor]:
        seen.append(tensors[0].numpy().copy())
        return packed_only(program)(*tensors)

    buckets, _ = made(program, Direct(watched))
    for seed in (0, 1, 2):  # the third replays over what the second left in the memory
        buckets.run(rows(8, seed=seed), [PACKED])
    given_rows = rows(6, seed=3)
    buckets.run(given_rows, [PACKED])
    np.testing.assert_array_equal(seen[-1][:6], given_rows[0])
    np.testing.assert_array_equal(seen[-1][6:], np.repeat(given_rows[0][:1], 2, axis=0))


def test_each_pass_waits_once_and_copies_what_is_asked_for():
    def function(x: Tensor) -> list[Tensor]:
        return [x * 2, x.sum(1, keepdim=True)]

    def plain(inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        results = dict(zip(("twice", "sum"), function(*map(as_tensor, inputs)), strict=True))
        return [results[name].numpy() for name in outputs]

    recorder = Direct(function)
    buckets = Buckets(plain, recorder, {"twice": 0, "sum": 1})
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    for _ in range(2):
        buckets.run([x], ["twice", "sum"])
    before = recorder.waits
    total, twice = buckets.run([x], ["sum", "twice"])
    assert recorder.waits == before + 1
    np.testing.assert_array_equal(twice, x * 2)
    np.testing.assert_array_equal(total, x.sum(1, keepdims=True))
    assert [output.shape for output in buckets.run([x], ["sum"])] == [(3, 1)]


@pytest.mark.parametrize("inputs", [rows(0), rows(300)], ids=["none", "many"])
def test_rows_that_no_bucket_holds_are_run_as_they_are(program, inputs):
    buckets, recorder = made(program)
    for _ in range(3):
        np.testing.assert_array_equal(buckets.run(inputs, [PACKED])[0], program.run(inputs, [PACKED])[0])
    assert recorder.recorded == []


def test_an_output_that_is_not_recorded_is_found_by_a_plain_pass(program):
    buckets, recorder = made(program)
    for _ in range(3):
        kind, _packed = buckets.run(rows(3), ["kind", PACKED])
    np.testing.assert_array_equal(kind, program.run(rows(3), ["kind"])[0])
    assert recorder.recorded == []


def test_rows_that_cannot_be_written_to_are_taken_and_left_as_they_are(program):
    buckets, _ = made(program)
    frozen = [np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape) for array in rows(3)]
    for _ in range(3):
        answer = buckets.run(frozen, [PACKED])[0]
    np.testing.assert_allclose(answer, program.run(rows(3), [PACKED])[0], rtol=1e-4, atol=1e-5)


def test_rows_that_lie_in_pinned_memory_are_copied_to_the_device_from_there(program):
    buckets, recorder = made(program)
    memory = buckets.empty((64, 100, 6), "float32")
    recorder.pinned_arrays.append(memory)
    assert (memory.shape, memory.dtype, memory.flags.c_contiguous) == ((64, 100, 6), np.float32, True)
    for count, seed in ((60, 0), (60, 1), (58, 2), (64, 3)):
        numbers, code = rows(count, 100, seed)
        memory[:count] = numbers
        (answer,) = buckets.run([memory[:count], code], [PACKED])
        np.testing.assert_allclose(answer, program.run([numbers, code], [PACKED])[0], rtol=1e-4, atol=1e-5)
    assert buckets.replays == 2
    assert recorder.direct == 4  # recorded and compared once, replayed twice
    buckets.run([memory[:60].copy(), code[:60]], [PACKED])
    assert recorder.direct == 4


def test_a_runtime_without_recordings_gives_plain_memory_to_collate_into():
    array = Recordable().empty((3, 2), "int64")
    assert (array.shape, array.dtype, array.flags.owndata) == ((3, 2), np.int64, True)


@contextlib.contextmanager
def warned(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.WARNING):
        yield
    assert "cannot be recorded" in caplog.text


def test_a_graph_that_cannot_be_recorded_runs_eagerly_and_says_why(program, caplog):
    class Refusing(Direct):
        def record(self, inputs: Sequence[Tensor]) -> Recording:
            raise NotRecordable("operation not permitted when stream is capturing")

    buckets, _ = made(program, Refusing(packed_only(program)))
    with warned(caplog):
        for _ in range(4):
            np.testing.assert_array_equal(buckets.run(rows(3), [PACKED])[0], program.run(rows(3), [PACKED])[0])
    assert (buckets.mode, buckets.recorded) == ("eager", 0)
    assert buckets.why == "operation not permitted when stream is capturing"
    assert len(caplog.records) == 1


@pytest.mark.parametrize("fault", ["nothing", "frozen", "nan"])
def test_a_recording_that_answers_otherwise_answers_nobody(program, caplog, fault):
    """A graph with no kernels in it, one that took a number of its first rows for a constant, one that reads freed
    memory."""

    class Broken(Direct):
        def record(self, inputs: Sequence[Tensor]) -> Recording:
            made = Called(self.function, inputs)
            values = {"nothing": 0.0, "frozen": made.outputs[0].clone() + 7, "nan": float("nan")}
            made.replay = lambda: made.outputs[0].copy_(torch.as_tensor(values[fault]))  # type: ignore[method-assign]
            return made

    buckets, _ = made(program, Broken(packed_only(program)))
    with warned(caplog):
        for _ in range(3):
            np.testing.assert_array_equal(buckets.run(rows(3), [PACKED])[0], program.run(rows(3), [PACKED])[0])
    assert buckets.mode == "eager"
    assert buckets.why == "recorded, output 'polyhead_packed' of 3 rows is another than it was"


def test_nobody_can_stop_recording_with_rows_that_overflow(program):
    buckets, recorder = made(program)
    huge = rows(3)
    huge[0][:] = 3e38
    for _ in range(3):
        assert not np.isfinite(buckets.run(huge, [PACKED])[0]).all()
    assert (recorder.recorded, buckets.mode) == ([], "cuda graphs")
    buckets.run(rows(3), [PACKED])
    assert recorder.recorded == [(4, 4)]
    assert not np.isfinite(buckets.run(huge, [PACKED])[0]).any()  # replayed, overflows are as they were
    np.testing.assert_allclose(
        buckets.run(rows(3), [PACKED])[0], program.run(rows(3), [PACKED])[0], rtol=1e-4, atol=1e-5
    )


def test_a_runtime_says_how_its_passes_run(program):
    assert base.mode(program) == "eager"
    stated = Recordable()
    stated.eager = "the graph has operations that only the CPU has"
    assert base.mode(stated) == "eager (the graph has operations that only the CPU has)"
    stated.buckets, _ = made(program)
    assert base.mode(stated) == "cuda graphs"
