import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors

from polyhead.models.data import Rows, Split
from polyhead.models.heads import Regression, build_head
from polyhead.models.learning import history
from polyhead.models.learning.results import SAMPLES
from polyhead.models.learning.seeds import epoch_seed
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.recipe import Recipe, RecipeError
from polyhead.models.run import Run, RunError
from polyhead.models.spec import ModelSpec, SpecError
from polyhead.models.training import train
from polyhead.models.trunks.mlp import MLP

# `far` is the sum of the four numbers in a large unit, `sign` whether the first is positive; `spare` has no targets.
SPEC = ModelSpec.parse(
    {
        "name": "toy",
        "version": "1.0",
        "inputs": {"x": {"kind": "tensor", "shape": [4]}},
        "heads": {
            "sign": {"kind": "classification", "labels": ["minus", "plus"]},
            "far": {"kind": "regression", "unit": "m"},
            "spare": {"kind": "embedding", "dim": 3},
        },
    }
)
RECIPE = Recipe(max_epochs=8, batch_size=32, learning_rate=3e-2)


def rows(count, seed):
    x = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    far = 1000 + 50 * x.sum(axis=1, keepdims=True)
    return Rows({"x": x}, {"sign": (x[:, 0] > 0).astype(np.int64), "far": far})


SPLIT = Split(rows(256, 0), rows(64, 1), rows(96, 2))


def network(location=0.0, scale=1.0):
    trunk = MLP(4, (32,))
    heads = {name: build_head(SPEC.heads[name], 32) for name in ("sign", "spare")}
    return MultiTaskNetwork(trunk, {**heads, "far": Regression(32, location=location, scale=scale)})


def build(train_rows):
    far = train_rows.targets["far"]
    return network(float(np.nanmean(far)), float(np.nanstd(far)))


def trained(out, recipe=RECIPE, split=SPLIT, augment=None):
    return train(SPEC, build, split, recipe, out, "toys:network", augment)


def weights(run):
    return {name: tensor.numpy().tobytes() for name, tensor in load_tensors(run.weights).items()}


def loaded(run):
    model = network()
    model.load_state_dict(load_tensors(run.weights))
    return model.eval()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs") / "nested" / "toy")


# The run's directory


def test_a_run_leaves_its_files(run):
    assert {path.name for path in run.folder.iterdir()} == {
        *("run.json", "spec.yaml", "recipe.yaml", "history.json", "tensorboard"),
        *("weights.safetensors", "samples.safetensors", "predictions.safetensors"),
    }
    events = list((run.folder / "tensorboard").glob("events.out.tfevents.*"))
    assert len(events) == 1
    for tag in (b"train/loss", b"train/sign", b"validation/loss", b"validation/far", b"validation/sign/accuracy"):
        assert tag in events[0].read_bytes()


def test_the_directory_opens_as_the_run_that_train_returned(run):
    opened = Run.open(run.folder)
    assert (opened.spec, opened.record) == (SPEC, run.record)


def test_the_record_says_how_the_run_was_made(run):
    record = run.record
    assert (record.factory, record.recipe, record.epochs) == ("toys:network", RECIPE, 8)
    assert (record.monitor, record.score) == ("loss", min(validation_losses(run)))
    assert record.best_epoch == int(np.argmin(validation_losses(run))) + 1
    assert 0 < record.seconds < 60
    assert record.versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(record.versions) == {"torch", "lightning", "torchmetrics"}


def test_samples_are_the_first_held_out_rows_as_they_came(run):
    samples = load_file(run.samples)
    assert list(samples) == ["x"]
    assert samples["x"].dtype == np.float32
    assert np.array_equal(samples["x"], SPLIT.test.inputs["x"][:SAMPLES])


def test_the_weights_fit_the_untrained_network_and_carry_the_targets_scale(run):
    state = load_tensors(run.weights)
    assert set(state) == set(network().state_dict())
    assert state["heads.far.location"].item() == pytest.approx(SPLIT.train.targets["far"].mean(), rel=1e-5)
    assert state["heads.far.scale"].item() == pytest.approx(SPLIT.train.targets["far"].std(), rel=1e-5)


# What was learnt


def test_both_tasks_are_learnt(run):
    assert run.record.metrics["sign"]["accuracy"] > 0.9
    assert run.record.metrics["far"]["r2"] > 0.95


def test_the_recorded_metrics_are_those_of_the_written_weights_on_the_held_out_rows(run):
    test = SPLIT.test
    with torch.inference_mode():
        outputs = loaded(run)(x=torch.from_numpy(test.inputs["x"]))
    far, target = outputs["far"].numpy(), test.targets["far"]
    r2 = 1 - ((far - target) ** 2).sum() / ((target - target.mean()) ** 2).sum()
    assert run.record.metrics == {
        "sign": {
            "accuracy": pytest.approx((outputs["sign"].argmax(1).numpy() == test.targets["sign"]).mean(), abs=1e-4),
            "f1": pytest.approx(run.record.metrics["sign"]["accuracy"], abs=0.05),
        },
        "far": {"mae": pytest.approx(np.abs(far - target).mean(), abs=1e-3), "r2": pytest.approx(r2, abs=1e-4)},
    }


def test_a_head_without_targets_is_not_trained(run):
    torch.manual_seed(RECIPE.seed)
    first, last = network().state_dict(), load_tensors(run.weights)
    unchanged = {name for name in first if torch.equal(first[name], last[name])}
    assert unchanged == {"heads.spare.linear.weight", "heads.spare.linear.bias"}
    assert set(run.record.metrics) == {"sign", "far"}


def test_a_weight_of_0_leaves_a_task_unlearnt(tmp_path, run):
    ignored = trained(tmp_path / "toy", RECIPE.model_copy(update={"loss_weights": {"far": 0.0}}))
    assert ignored.record.metrics["far"]["r2"] < 0.5
    assert ignored.record.metrics["sign"]["accuracy"] > 0.9


def test_labels_missing_in_some_rows_and_in_whole_batches_are_fine(tmp_path):
    def holed(full, keep):
        far, sign = full.targets["far"].copy(), full.targets["sign"].copy()
        far[keep:], sign[: keep // 2] = np.nan, -1
        return Rows(full.inputs, {"sign": sign, "far": far})

    holes = Split(holed(SPLIT.train, 40), holed(SPLIT.validation, 20), holed(SPLIT.test, 30))
    run = trained(tmp_path / "toy", RECIPE.model_copy(update={"batch_size": 8}), holes)
    assert all(tensor.isfinite().all() for tensor in load_tensors(run.weights).values())
    assert run.record.metrics["sign"]["accuracy"] > 0.85
    assert run.record.metrics["far"]["r2"] > 0.85


# The same again, or not


def test_the_same_seed_gives_the_same_weights_bit_for_bit(tmp_path, run):
    torch.manual_seed(99)
    again = trained(tmp_path / "toy")
    assert weights(again) == weights(run)
    assert again.record.metrics == run.record.metrics


def test_another_seed_gives_other_weights(tmp_path, run):
    other = weights(trained(tmp_path / "toy", RECIPE.model_copy(update={"seed": 1})))
    assert other.keys() == weights(run).keys()
    assert {name for name in other if other[name] == weights(run)[name]} == {"heads.far.location", "heads.far.scale"}


def test_a_run_into_the_same_folder_replaces_the_earlier_one(tmp_path, run):
    folder = tmp_path / "toy"
    trained(folder, Recipe(seed=5, max_epochs=1, batch_size=128))
    again = trained(folder)
    assert len(list((folder / "tensorboard").glob("events.out.tfevents.*"))) == 1
    assert not (folder / "checkpoints").exists()
    assert len(validation_losses(again)) == RECIPE.max_epochs
    assert weights(again) == weights(run)
    assert Run.open(folder).record.recipe == RECIPE
    assert Run.open(folder).record.metrics == run.record.metrics


def test_a_run_that_breaks_off_does_not_pass_for_the_earlier_one(tmp_path, run):
    def breaks(_inputs, _targets, _generator):
        raise ZeroDivisionError

    folder = tmp_path / "toy"
    shutil.copytree(run.folder, folder)
    with pytest.raises(ZeroDivisionError):
        trained(folder, augment=breaks)
    with pytest.raises(RunError, match="is no finished training run"):
        Run.open(folder)
    assert not list(folder.glob("*.safetensors"))


def test_a_recipe_that_is_refused_leaves_the_earlier_run_alone(tmp_path, run):
    folder = tmp_path / "toy"
    shutil.copytree(run.folder, folder)
    with pytest.raises(RecipeError, match=r"^loss weight for 'near', which is no head \(heads: far, sign, spare\)$"):
        trained(folder, RECIPE.changed({"loss_weights": {"near": 1.0}}))
    with pytest.raises(ZeroDivisionError):
        train(SPEC, lambda _rows: 1 / 0, SPLIT, RECIPE, folder, "toys:network")
    assert Run.open(folder).record == run.record


@pytest.mark.parametrize("earlier", [False, True], ids=["new folder", "over an earlier run"])
def test_a_diverged_run_says_so_and_leaves_no_record(tmp_path, run, earlier):
    folder = tmp_path / "toy"
    if earlier:
        folder.mkdir()
        (folder / "run.json").write_bytes((run.folder / "run.json").read_bytes())
    with pytest.raises(RunError) as caught:
        trained(folder, RECIPE.model_copy(update={"learning_rate": 1e30}))
    assert re.fullmatch(
        r"head '(far|sign)': the (train|validation) loss is not finite \((nan|inf)\) in epoch 1: "
        r"lower the learning rate, set gradient_clip, or look for extreme values in its targets",
        str(caught.value),
    )
    assert not (folder / "run.json").exists()
    assert not (folder / "weights.safetensors").exists()


def test_data_without_any_target_is_refused(tmp_path):
    bare = Rows(SPLIT.train.inputs, {})
    with pytest.raises(SpecError, match=r"^the data has targets for none of the heads: there is nothing to learn$"):
        train(SPEC, lambda _: network(), Split(bare, bare, bare), RECIPE, tmp_path / "toy", "toys:network")
    assert not (tmp_path / "toy" / "run.json").exists()


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("learning_rate", [0.01, 1e30], ids=["finished", "diverged"])
def test_training_leaves_the_process_as_deterministic_as_it_was(tmp_path, deterministic, learning_rate):
    recipe = Recipe(max_epochs=1, batch_size=128, learning_rate=learning_rate)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        if learning_rate < 1:
            trained(tmp_path / "toy", recipe)
        else:
            with pytest.raises(RunError, match="not finite"):
                trained(tmp_path / "toy", recipe)
        assert torch.are_deterministic_algorithms_enabled() is deterministic
    finally:
        torch.use_deterministic_algorithms(before)


# Heads with hardly a known target


@pytest.mark.parametrize(
    ("head", "known", "metrics"),
    [
        ("far", 0, set()),
        ("far", 1, {"mae"}),
        ("far", 2, {"mae", "r2"}),
        ("sign", 0, set()),
        ("sign", 1, {"accuracy", "f1"}),
        ("spare", 0, set()),
        ("spare", 1, {"nearest_neighbour_accuracy"}),
    ],
)
def test_too_few_targets_to_validate_or_test_leave_out_the_metric_only(tmp_path, head, known, metrics):
    def holed(full, keep):
        targets = {**full.targets, "spare": full.targets["sign"]}
        targets[head] = targets[head].copy()
        targets[head][keep:] = np.nan if head == "far" else -1
        return Rows(full.inputs, targets)

    split = Split(holed(SPLIT.train, 256), holed(SPLIT.validation, known), holed(SPLIT.test, known))
    run = trained(tmp_path / "toy", Recipe(max_epochs=1, batch_size=128), split)
    whole = {"far": {"mae", "r2"}, "sign": {"accuracy", "f1"}, "spare": {"nearest_neighbour_accuracy"}}
    assert {name: set(values) for name, values in run.record.metrics.items()} == {**whole, head: metrics}
    assert Run.open(run.folder).record.metrics == run.record.metrics


# Stopping early


def noise_rows(count, seed):
    """Inputs that tell nothing about the label: validation can only get worse."""
    random = np.random.default_rng(seed)
    return Rows(
        {"x": random.normal(size=(count, 4)).astype(np.float32)},
        {"sign": random.integers(0, 2, count).astype(np.int64)},
    )


def validation_losses(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    logged = [event.value for event in events.Scalars("validation/loss")]
    losses = [entry["loss"]["validation"] for entry in history.read(run.history)]
    assert logged == pytest.approx(losses, rel=1e-6)  # the same in both places
    return losses


@pytest.mark.parametrize("patience", [1, 3])
def test_training_stops_after_patience_epochs_without_a_better_validation_loss(tmp_path, patience):
    split = Split(noise_rows(64, 0), noise_rows(64, 1), noise_rows(64, 2))
    recipe = Recipe(max_epochs=60, batch_size=16, learning_rate=0.1, patience=patience)
    run = train(SPEC, lambda _: network(), split, recipe, tmp_path / "toy", "toys:network")
    losses = validation_losses(run)
    best = int(np.argmin(losses))
    assert run.record.epochs == len(losses) == best + 1 + patience < 60


def test_the_best_epoch_is_kept_and_not_the_last(tmp_path):
    split = Split(noise_rows(64, 0), noise_rows(64, 1), noise_rows(64, 2))
    recipe = Recipe(max_epochs=60, batch_size=16, learning_rate=0.1, patience=10)
    run = train(SPEC, lambda _: network(), split, recipe, tmp_path / "toy", "toys:network")
    losses = validation_losses(run)
    with torch.inference_mode():
        logits = loaded(run)(x=torch.from_numpy(split.validation.inputs["x"]))["sign"]
    kept = torch.nn.functional.cross_entropy(logits, torch.from_numpy(split.validation.targets["sign"])).item()
    assert kept == pytest.approx(min(losses), rel=1e-4)
    assert kept < 0.9 * losses[-1]


# Augmenting


def test_augment_sees_training_rows_only_and_draws_from_the_recipes_seed(tmp_path, run):
    seen, drawn = [], []

    def watch(inputs, targets, generator):
        seen.append(inputs["x"].clone())
        drawn.append(torch.rand(1, generator=generator).item())
        return inputs, targets

    recipe = RECIPE.model_copy(update={"max_epochs": 1, "seed": 11})
    trained(tmp_path / "toy", recipe, augment=watch)
    got = np.sort(torch.cat(seen).numpy(), axis=0)
    assert np.array_equal(got, np.sort(SPLIT.train.inputs["x"], axis=0))
    expected = torch.Generator().manual_seed(epoch_seed(11, 0, "augment"))
    assert drawn == [torch.rand(1, generator=expected).item() for _ in range(8)]


def test_what_augment_returns_is_what_is_learnt(tmp_path):
    def blank(inputs, targets, _generator):
        return {"x": torch.zeros_like(inputs["x"])}, targets

    assert trained(tmp_path / "toy", augment=blank).record.metrics["far"]["r2"] < 0.5
    unchanged = trained(tmp_path / "toy", RECIPE.changed({"augment": False}), augment=blank)
    assert unchanged.record.metrics["far"]["r2"] > 0.95


# Images


def test_images_are_normalised_before_the_network(tmp_path):
    spec = ModelSpec.parse(
        {
            "name": "pixels",
            "version": "1",
            "inputs": {
                "image": {"kind": "image", "size": [2, 2], "channels": "gray", "mean": [0.5], "std": [0.25]},
            },
            "heads": {"bright": {"kind": "classification", "labels": ["no", "yes"]}},
        }
    )
    pixels = np.random.default_rng(0).integers(0, 256, (64, 2, 2, 1)).astype(np.uint8)
    everything = Rows({"image": pixels}, {"bright": (pixels.mean(axis=(1, 2, 3)) > 127).astype(np.int64)})
    seen = []

    def watched(_rows):
        trunk = MLP(4, (8,))
        trunk.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
        return MultiTaskNetwork(trunk, {"bright": build_head(spec.heads["bright"], 8)})

    split, recipe = Split(everything, everything, everything), Recipe(max_epochs=1)
    run = train(spec, watched, split, recipe, tmp_path / "pixels", "toys:pixels")
    expected = ((pixels / 255 - 0.5) / 0.25).astype(np.float32).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(seen[-1].numpy(), expected, rtol=1e-5, atol=1e-6)
    assert not [name for name in load_tensors(run.weights) if "mean" in name or "preprocess" in name]
    assert load_file(run.samples)["image"].dtype == np.uint8
