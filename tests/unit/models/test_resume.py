"""A run that was broken off goes on as if nothing had happened: the same weights and history, bit for bit."""

import json
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from polyhead.models.data import Rows, Split
from polyhead.models.heads import Regression, build_head
from polyhead.models.learning.resuming import Origin
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.recipe import Recipe
from polyhead.models.run import Run, RunError
from polyhead.models.training import train
from polyhead.models.trunks.mlp import MLP
from tests.command import POLYHEAD
from tests.unit.models import own_model

SPEC = own_model.SPEC
RECIPE = Recipe(max_epochs=5, batch_size=16, learning_rate=3e-2)


def rows(count, seed):
    x = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    sign = np.where(np.arange(count) % 3 == 0, -1, x[:, 0] > 0).astype(np.int64)  # every third is missing
    return Rows({"x": x}, {"sign": sign, "far": x.sum(axis=1, keepdims=True)})


SPLIT = Split(rows(96, 0), rows(32, 1), rows(32, 2))


def build(_rows):
    trunk = MLP(4, (16, 16))
    trunk.layers.append(torch.nn.Dropout(0.2))
    trunk.layers.append(torch.nn.BatchNorm1d(16))
    return MultiTaskNetwork(trunk, {"sign": build_head(SPEC.heads["sign"], 16), "far": Regression(16)})


class Noise:
    """An augmentation that draws numbers, and breaks off at one of its calls."""

    def __init__(self, breaks_at=None):
        self.left = breaks_at

    def __call__(self, inputs, targets, generator):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyError("power cut")
        x = inputs["x"]
        return {"x": x + 0.1 * torch.randn(x.shape, generator=generator)}, targets


def trained(out, recipe=RECIPE, split=SPLIT, breaks_at=None, resume=False, say=lambda _: None):
    return train(SPEC, build, split, recipe, out, "toys:build", Noise(breaks_at), resume=resume, say=say)


def weights(run):
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(run.weights).items()}


def epochs(run):
    """The history without the time it took."""
    entries = json.loads(run.history.read_text())
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in entries]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"weighting": "uncertainty", "schedule": "cosine", "warmup": 0.2, "sampling": "balanced"},
        {"weighting": "dwa", "gradients": "pcgrad", "schedule": "linear", "sampling": "proportional"},
        {"gradients": "graddrop", "unfreeze": {"after_epochs": 2}, "layer_decay": 0.5, "gradient_clip": 1.0},
        {"schedule": "constant", "freeze": ["trunk.layers.1"], "class_weights": "balanced", "inspect": True},
        {"precision": "bf16-mixed", "monitor": "far/mae"},
    ],
    ids=lambda changes: ", ".join(changes) or "default",
)
def test_resuming_gives_the_same_weights_and_history_bit_for_bit(tmp_path, changes):
    recipe = RECIPE.changed(changes)
    whole = trained(tmp_path / "whole", recipe)
    broken = tmp_path / "broken"
    steps = 6  # an epoch
    for breaks_at in (2 * steps + 3, 2 * steps):  # in the third epoch, then with the fourth batch of the fifth
        with pytest.raises(KeyError):
            trained(broken, recipe, breaks_at=breaks_at, resume=True)
        with pytest.raises(RunError, match="is no finished training run"):
            Run.open(broken)
    again = trained(broken, recipe, resume=True)
    assert weights(again) == weights(whole)
    assert epochs(again) == epochs(whole)
    assert [entry["epoch"] for entry in epochs(again)] == [1, 2, 3, 4, 5]
    seconds = {"seconds": 0.0}
    assert again.record.model_copy(update=seconds) == whole.record.model_copy(update=seconds)
    assert not (broken / "checkpoints").exists()


def test_tensorboard_shows_each_epoch_once(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(KeyError):
        trained(tmp_path / "toy", breaks_at=20)
    run = trained(tmp_path / "toy", resume=True)
    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    logged = [event.value for event in events.Scalars("validation/loss")]
    assert logged == pytest.approx([entry["loss"]["validation"] for entry in epochs(run)])


def test_a_run_that_had_stopped_early_stops_again_without_another_epoch(tmp_path):
    noise = np.random.default_rng(0)
    # Nothing to learn: it can only get worse.
    lost = Split(*(Rows(part.inputs, {"sign": noise.integers(0, 2, len(part))}) for part in SPLIT.parts().values()))
    recipe = RECIPE.changed({"max_epochs": 60, "patience": 2, "learning_rate": 0.1})
    whole = trained(tmp_path / "whole", recipe, lost)
    assert 3 <= whole.record.epochs < 60

    # What is left when the machine dies between the last epoch and the results: no augmentation is called any more.
    calls = 6 * whole.record.epochs
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "spec.yaml").mkdir()
    with pytest.raises(IsADirectoryError):
        trained(broken, recipe, lost, breaks_at=calls)
    (broken / "spec.yaml").rmdir()
    again = trained(broken, recipe, lost, breaks_at=0, resume=True)
    assert epochs(again) == epochs(whole)
    assert weights(again) == weights(whole)


def test_a_run_whose_epochs_are_all_done_trains_no_more(tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "spec.yaml").mkdir()
    with pytest.raises(IsADirectoryError):
        trained(broken)
    (broken / "spec.yaml").rmdir()
    again = trained(broken, breaks_at=0, resume=True)
    assert weights(again) == weights(trained(tmp_path / "whole"))


def test_resuming_a_finished_run_returns_it_and_says_so(tmp_path):
    whole, said = trained(tmp_path / "toy"), []
    before = (tmp_path / "toy" / "run.json").stat().st_mtime_ns
    again = trained(tmp_path / "toy", breaks_at=0, resume=True, say=said.append)
    assert again.record == whole.record
    assert said == [f"{tmp_path / 'toy'}: the run is finished already, there is nothing to resume"]
    assert (tmp_path / "toy" / "run.json").stat().st_mtime_ns == before


def test_resuming_nothing_starts_and_says_so(tmp_path):
    said = []
    trained(tmp_path / "toy", RECIPE.changed({"max_epochs": 1}), resume=True, say=said.append)
    assert said == [f"{tmp_path / 'toy'}: there is no checkpoint to resume, training starts anew"]


def test_resuming_says_where_it_goes_on(tmp_path):
    said = []
    with pytest.raises(KeyError):
        trained(tmp_path / "toy", breaks_at=14)
    trained(tmp_path / "toy", resume=True, say=said.append)
    assert said == [f"{tmp_path / 'toy'}: resuming after epoch 2"]


def test_without_resume_a_broken_run_is_replaced(tmp_path):
    with pytest.raises(KeyError):
        trained(tmp_path / "toy", RECIPE.changed({"seed": 5}), breaks_at=14)
    assert weights(trained(tmp_path / "toy")) == weights(trained(tmp_path / "whole"))


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "toy"
    with pytest.raises(KeyError):
        trained(folder, breaks_at=14)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs") / "toy").folder


@pytest.mark.parametrize("state", ["broken", "finished"])
@pytest.mark.parametrize(
    ("changes", "other", "says"),
    [
        ({"batch_size": 8}, SPLIT, "batch_size was 16, is 8"),
        ({"seed": 1, "max_epochs": 6}, SPLIT, "seed was 0, is 1; max_epochs was 5, is 6"),
        ({}, Split(rows(96, 3), SPLIT.validation, SPLIT.test), "the data (rows or tokenizers) is another"),
    ],
    ids=["recipe", "several keys", "data"],
)
def test_resuming_with_something_else_is_refused_and_leaves_all_as_it_was(request, state, changes, other, says):
    folder = request.getfixturevalue(state)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(RunError) as caught:
        trained(folder, RECIPE.changed(changes), other, resume=True)
    assert str(caught.value) == (
        f"{folder}: --resume goes on with the same recipe and data alone, but {says}: "
        "change it back, or train without --resume"
    )
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("content", [b"", b"[]", b'{"recipe": {}}'])
def test_a_damaged_origin_is_refused(tmp_path, content):
    (tmp_path / "origin.json").write_bytes(content)
    with pytest.raises(RunError, match=r"origin\.json: .*: train without --resume$"):
        Origin.read(tmp_path / "origin.json")


def test_every_row_text_and_tokenizer_counts_for_the_data(tmp_path):
    def data(split, tokenizers):
        return Origin.of(SPEC, split, RECIPE, "toys:build", tokenizers).data

    texts = np.array(["on", "off"], dtype=object)
    first = Rows({"text": texts}, {"slots": np.array([((0, 2, "x"),), None], dtype=object)})
    second = Rows({"text": texts}, {"slots": np.array([((0, 1, "x"),), None], dtype=object)})
    seen = [
        data(Split(a, b, c), {"text": t})
        for a in (first, second)
        for b in (first, second)
        for c in (first, second)
        for t in (b"1", b"2")
    ]
    assert len(set(seen)) == 16
    assert data(Split(first, first, first), {"text": b"1"}) == seen[0]


# A real process, really killed


def test_a_process_killed_at_any_time_is_resumed_bit_for_bit(tmp_path):
    shutil.copy(own_model.__file__, tmp_path / "toy.py")
    command = [str(POLYHEAD), "train", "toy.py:MODEL", "--resume", "--out"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run([*command, str(whole)], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    checkpoints = broken / "checkpoints"
    moments = [
        lambda: (broken / "tensorboard").exists(),  # before the first checkpoint
        # While one is written; on a busy machine that moment may be missed, and a later one has to do.
        lambda: (checkpoints / "last.partial").exists() or len(done(broken)) >= 8,
        lambda: len(done(broken)) >= 12,  # between two
    ]
    for moment in moments:
        with subprocess.Popen(
            [*command, str(broken)], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            deadline = time.monotonic() + 60
            while not moment() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.0002)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    assert 12 <= len(done(broken)) < 30
    subprocess.run([*command, str(broken)], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    assert weights(Run.open(broken)) == weights(Run.open(whole))
    assert epochs(Run.open(broken)) == epochs(Run.open(whole))


def done(folder):
    path = folder / "history.json"
    return json.loads(path.read_text()) if path.exists() else []


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_process_says_how_to_go_on(tmp_path, name):
    shutil.copy(own_model.__file__, tmp_path / "toy.py")
    with subprocess.Popen(
        [str(POLYHEAD), "train", "toy.py:MODEL", "--out", "toy"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "toy" / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(getattr(signal, name))
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "epochs; go on with --resume" in told
    assert "Traceback" not in told
