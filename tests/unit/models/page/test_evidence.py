import json
import math

import numpy as np
import pytest
from safetensors.numpy import save_file

from polyhead.models.page.evidence import Evidence
from polyhead.models.page.panels import conflicts
from polyhead.models.run import RunError
from tests.unit.models.page.runs import ROWS, spec_of, write_run


def of(run, history):
    run.history.write_text(json.dumps(history))
    return Evidence.of(run)


def test_a_whole_run_is_read(tmp_path):
    evidence = Evidence.of(write_run(tmp_path))
    assert evidence.epochs == [1, 2, 3]
    assert set(evidence.outcomes) == set(evidence.spec.heads)
    assert evidence.outcomes["slots"].outputs.shape == (ROWS, 5, 4)
    assert evidence.images.shape == (4, 6, 8, 3)
    assert evidence.record.parameters.total == 22713216


def test_series_go_epoch_by_epoch_and_have_gaps_where_a_value_is_missing(tmp_path):
    entries = [
        {"epoch": 1, "validation": {"a": {"loss": 1.5}}},
        {"epoch": 2, "validation": {"a": {}, "b": {"loss": 2}}},
        {"epoch": 3, "validation": None},
    ]
    evidence = of(write_run(tmp_path), entries)
    np.testing.assert_array_equal(evidence.series("validation", "a", "loss"), [1.5, math.nan, math.nan])
    np.testing.assert_array_equal(evidence.series("validation", "b", "loss"), [math.nan, 2, math.nan])
    assert evidence.names("validation") == ["a", "b"]
    assert evidence.names("weights") == []


def test_conflicts_are_the_mean_over_the_epochs_in_which_a_pair_met(tmp_path):
    cosines = [{"a|b": -0.5, "a|c": 1.0}, {"a|b": 0.25}, {}]
    entries = [{"epoch": i, "gradients": {"norms": {}, "cosines": c}} for i, c in enumerate(cosines, start=1)]
    tasks, matrix = conflicts(of(write_run(tmp_path), entries))
    nan = math.nan
    assert tasks == ["a", "b", "c"]
    np.testing.assert_array_equal(matrix, [[nan, -0.125, 1.0], [-0.125, nan, nan], [1.0, nan, nan]])


def test_files_that_a_run_does_not_have_are_empty(tmp_path):
    run = write_run(tmp_path)
    for path in (run.history, run.predictions, run.samples):
        path.unlink()
    evidence = Evidence.of(run)
    assert (evidence.entries, evidence.outcomes, evidence.images) == ([], {}, None)


def test_a_head_without_predictions_is_left_out(tmp_path):
    run = write_run(tmp_path)
    arrays = {"intent.outputs": np.zeros((2, 4), np.float32), "intent.targets": np.zeros(2, np.int64)}
    save_file({**arrays, "alerts.outputs": np.zeros((2, 2), np.float32)}, run.predictions)
    assert set(Evidence.of(run).outcomes) == {"intent"}


def test_bgr_images_are_shown_as_rgb(tmp_path):
    image = {"image": {"kind": "image", "size": [6, 8], "channels": "bgr"}}
    run = write_run(tmp_path, spec_of({"a": {"kind": "embedding", "dim": 2}}, inputs=image))
    pixels = np.zeros((1, 6, 8, 3), np.uint8)
    pixels[..., 0] = 255
    save_file({"image": pixels}, run.samples)
    assert Evidence.of(run).images[0, 0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("content", ["[1", "{}", "[1]", '[{"train": {}}]'])
def test_a_damaged_history_is_refused(tmp_path, content):
    run = write_run(tmp_path)
    run.history.write_text(content)
    with pytest.raises(RunError, match=r"history\.json: is .*: train again$"):
        Evidence.of(run)


def test_damaged_predictions_are_refused(tmp_path):
    run = write_run(tmp_path)
    save_file(
        {"intent.outputs": np.zeros((2, 4), np.float32), "intent.targets": np.zeros(3, np.int64)}, run.predictions
    )
    with pytest.raises(RunError, match="head 'intent' has 2 outputs for 3 targets: train again"):
        Evidence.of(run)
    run.predictions.write_bytes(b"no tensors")
    with pytest.raises(RunError, match=r"predictions\.safetensors: cannot be read"):
        Evidence.of(run)
