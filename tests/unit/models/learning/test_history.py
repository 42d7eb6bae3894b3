import json

import pytest

from polyhead.models.learning import history
from polyhead.models.recipe import Recipe, RecipeError


def entries(losses, maes=None):
    return [
        {
            "epoch": index + 1,
            "loss": {"train": 1.0, "validation": loss},
            "validation": {"far": {"loss": loss, "mae": mae}, "sign": {"accuracy": -loss}},
        }
        for index, (loss, mae) in enumerate(zip(losses, maes or losses, strict=True))
    ]


@pytest.mark.parametrize(("monitor", "best"), [("loss", 2), ("far/loss", 2), ("far/mae", 4), ("sign/accuracy", 2)])
def test_the_best_epoch_is_the_first_with_the_best_monitored_value(monitor, best):
    run = entries([3.0, 1.0, 2.0, 1.0], [4.0, 3.0, 3.0, 2.0])
    assert history.best_epoch(run, Recipe(monitor=monitor)) == best


def test_patience_counts_epochs_since_the_best():
    recipe = Recipe(patience=2)
    assert [history.exhausted(entries([3.0, 1.0, 2.0, 2.0, 2.0][:n]), recipe) for n in range(6)] == [
        *[False] * 4,
        *[True] * 2,
    ]
    assert not history.exhausted(entries([3.0, 1.0, 2.0, 0.5]), recipe)
    assert history.exhausted(entries([1.0, 1.0, 1.0]), recipe)  # as good is not better


@pytest.mark.parametrize("monitor", ["loss", "sign/accuracy", "absent/f1"])
def test_a_value_that_is_not_there_names_those_that_are(monitor):
    entry = {"loss": {"train": 1.0}, "validation": {"far": {"mae": 1.0}, "sign": {}}}
    with pytest.raises(RecipeError) as caught:
        history.monitored(entry, monitor)
    assert str(caught.value) == (
        f"monitor {monitor!r} has no value on the validation rows (there are: far/mae): "
        "monitor another, or give validation rows with known targets"
    )


def test_what_is_written_is_json_and_read_again_and_no_other_file_is_left(tmp_path):
    run = entries([2.0, 1.0])
    history.write(run[:1], tmp_path / "history.json")
    history.write(run, tmp_path / "history.json")
    assert history.read(tmp_path / "history.json") == run
    assert json.loads((tmp_path / "history.json").read_text()) == run
    assert [path.name for path in tmp_path.iterdir()] == ["history.json"]
