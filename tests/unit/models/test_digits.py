import importlib

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors
from sklearn.datasets import load_digits

from polyhead.models.data import Rows
from polyhead.models.preprocess import Preprocess
from polyhead.models.run import Run
from polyhead.models.zoo import digits

MODEL = digits.MODEL


@pytest.fixture(scope="module")
def everything():
    return digits.rows()


@pytest.fixture(scope="module")
def split():
    return digits.split(0)


def parts(split):
    return split.train, split.validation, split.test


def keys(rows):
    """Each row as bytes; scikit-learn's 1 797 images are all different."""
    return [image.tobytes() for image in rows.inputs["image"]]


# Data


def test_there_are_1797_images_with_a_target_per_head(everything):
    assert len(everything) == 1797
    columns = {**everything.inputs, **everything.targets}
    assert {name: (str(array.dtype), array.shape) for name, array in columns.items()} == {
        "image": ("uint8", (1797, 8, 8, 1)),
        "digit": ("int64", (1797,)),
        "parity": ("int64", (1797,)),
        "ink": ("float32", (1797, 1)),
        "embedding": ("int64", (1797,)),
    }
    assert set(everything.targets) == set(MODEL.spec.heads)
    assert set(everything.inputs) == set(MODEL.spec.inputs)


def test_17_levels_of_ink_are_stretched_to_256(everything):
    levels = load_digits().images[..., None]
    expected = {0: 0, 1: 16, 5: 80, 8: 128, 13: 207, 15: 239, 16: 255}
    for level, pixel in expected.items():
        assert set(everything.inputs["image"][levels == level]) == {pixel}
    assert len(np.unique(everything.inputs["image"])) == 17


def test_ink_is_the_mean_of_the_inked_pixels_of_the_first_image(everything):
    # scikit-learn's first image, a zero: its rows sum to 28, 58, 39, 32, 30, 35, 43, 29 over 35 inked pixels.
    levels = [5, 13, 9, 1, 13, 15, 10, 15, 5, 3, 15, 2, 11, 8, 4, 12, 8, 8]
    levels += [5, 8, 9, 8, 4, 11, 1, 12, 7, 2, 14, 5, 10, 12, 6, 13, 10]
    assert (sum(levels), len(levels)) == (294, 35)
    assert everything.targets["ink"][0, 0] == pytest.approx(294 / 35) == pytest.approx(8.4)
    assert (everything.targets["digit"][0], everything.targets["parity"][0]) == (0, 0)


def test_ink_can_be_read_off_every_image(everything):
    pixels = everything.inputs["image"].reshape(1797, 64).astype(float)
    ink = (pixels.sum(axis=1) / (pixels > 0).sum(axis=1)) / 255 * 16
    np.testing.assert_allclose(everything.targets["ink"][:, 0], ink, atol=0.03)
    assert everything.targets["ink"].min() > 0
    assert everything.targets["ink"].max() <= 16


def test_targets_agree_with_the_labels_of_the_spec(everything):
    digit, parity = MODEL.spec.heads["digit"].labels, MODEL.spec.heads["parity"].labels
    for d, p in zip(everything.targets["digit"], everything.targets["parity"], strict=True):
        assert parity[p] == ("odd" if int(digit[d]) % 2 else "even")
    assert np.array_equal(everything.targets["embedding"], everything.targets["digit"])


def test_the_spec_normalises_with_the_datas_own_mean_and_deviation(everything):
    image, scaled = MODEL.spec.inputs["image"], everything.inputs["image"] / 255
    assert image.mean == (pytest.approx(scaled.mean(), abs=5e-4),)
    assert image.std == (pytest.approx(scaled.std(), abs=5e-4),)


# Split


def test_the_split_is_70_10_20_and_holds_every_row_once(everything, split):
    assert [len(part) for part in parts(split)] == [1257, 180, 360]
    together = [key for part in parts(split) for key in keys(part)]
    assert len(set(together)) == 1797
    assert set(together) == set(keys(everything))


@pytest.mark.parametrize("seed", [0, 1])
def test_every_part_has_the_digits_in_equal_shares(everything, seed):
    whole = np.bincount(everything.targets["digit"]) / 1797
    for part in parts(digits.split(seed)):
        counts = np.bincount(part.targets["digit"], minlength=10)
        assert np.abs(counts - whole * len(part)).max() <= 1


def test_rows_keep_their_targets_through_the_split(everything, split):
    digit = dict(zip(keys(everything), everything.targets["digit"], strict=True))
    ink = dict(zip(keys(everything), everything.targets["ink"], strict=True))
    for part in parts(split):
        assert [digit[key] for key in keys(part)] == part.targets["digit"].tolist()
        assert [ink[key] for key in keys(part)] == part.targets["ink"].tolist()


def test_the_seed_decides_the_split(split):
    assert keys(digits.split(0).test) == keys(split.test)
    assert set(keys(digits.split(1).test)) != set(keys(split.test))


# Augmentation


def shifted(image, seed=0):
    inputs, _ = digits.shift({"image": image}, {}, torch.Generator().manual_seed(seed))
    return inputs["image"]


@pytest.fixture(scope="module")
def images(everything):
    return torch.from_numpy(everything.inputs["image"])


def test_shift_keeps_the_ink_of_every_image_and_changes_some(images):
    after = shifted(images)
    assert (after.dtype, after.shape) == (images.dtype, images.shape)
    assert torch.equal(after.flatten(1).long().sum(1), images.flatten(1).long().sum(1))
    share = (after != images).flatten(1).any(1).float().mean().item()
    assert 0.1 < share < 0.6


def test_shift_moves_an_image_by_one_pixel_sideways_or_not_at_all(images):
    after = shifted(images)
    blank = torch.zeros_like(images[:, :, :1])
    right = torch.cat([blank, images[:, :, :-1]], dim=2)
    left = torch.cat([images[:, :, 1:], blank], dim=2)
    same = [(after == other).flatten(1).all(1) for other in (images, right, left)]
    assert torch.stack(same).any(0).all()
    assert all(kind.any() for kind in same)


def test_shift_leaves_images_alone_that_reach_both_edges():
    wide = torch.randint(1, 256, (200, 8, 8, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(shifted(wide), wide)


@pytest.mark.parametrize(("column", "reached"), [(0, {0, 1}), (7, {6, 7}), (4, {3, 4, 5})])
def test_shift_never_moves_ink_over_an_edge(column, reached):
    image = torch.zeros(200, 8, 8, 1, dtype=torch.uint8)
    image[:, 3, column] = 200
    assert set(shifted(image).nonzero()[:, 2].tolist()) == reached


def test_shift_draws_from_the_generator_only_and_changes_nothing_in_place(images):
    before = images.clone()
    torch.manual_seed(1)
    one = shifted(images, seed=3)
    torch.manual_seed(2)
    assert torch.equal(shifted(images, seed=3), one)
    assert not torch.equal(shifted(images, seed=4), one)
    assert torch.equal(images, before)


def test_shift_passes_other_inputs_and_the_targets_through(images):
    other, given = torch.arange(4), {"digit": torch.arange(4)}
    inputs, targets = digits.shift({"image": images[:4], "other": other}, given, torch.Generator())
    assert inputs["other"] is other
    assert targets is given


def test_shift_runs_where_the_image_is_with_a_generator_on_the_cpu():
    # `meta` stands in for a GPU: operands on two devices are an error there too.
    image = torch.zeros(5, 8, 8, 1, dtype=torch.uint8, device="meta")
    after = shifted(image)
    assert (after.device.type, after.dtype, after.shape) == ("meta", image.dtype, image.shape)


# Network


@pytest.mark.parametrize("batch", [1, 5])
def test_the_network_answers_every_head(batch):
    with torch.inference_mode():
        outputs = digits.network().eval()(image=torch.zeros(batch, 1, 8, 8))
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        "digit": (batch, 10),
        "parity": (batch, 2),
        "ink": (batch, 1),
        "embedding": (batch, 64),
    }
    torch.testing.assert_close(outputs["embedding"].norm(dim=1), torch.ones(batch))


def test_build_takes_location_and_scale_of_ink_from_the_training_rows():
    ink = np.array([[2.0], [4.0], [9.0]], dtype=np.float32)
    network = digits.build(Rows({"image": np.zeros((3, 8, 8, 1), np.uint8)}, {"ink": ink}))
    assert network.heads["ink"].location.item() == pytest.approx(5.0)
    assert network.heads["ink"].scale.item() == pytest.approx((26 / 3) ** 0.5)


def test_the_factory_makes_the_network_that_is_trained(split):
    module, function = MODEL.factory.split(":")
    made = getattr(importlib.import_module(module), function)()
    built = MODEL.build(split.train)
    assert {n: t.shape for n, t in made.state_dict().items()} == {n: t.shape for n, t in built.state_dict().items()}


# Training: the acceptance numbers


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return MODEL.train(tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture(scope="module")
def held_out(run, split):
    """Every head's output on the held-out rows, from the written weights."""
    network = digits.network()
    network.load_state_dict(load_tensors(run.weights))
    with torch.inference_mode():
        inputs = Preprocess(run.spec.inputs)({"image": torch.from_numpy(split.test.inputs["image"])})
        return {name: output.numpy() for name, output in network.eval()(**inputs).items()}


@pytest.mark.parametrize(("head", "least"), [("digit", 0.97), ("parity", 0.97)])
def test_labels_of_held_out_digits_are_right(run, held_out, split, head, least):
    accuracy = (held_out[head].argmax(axis=1) == split.test.targets[head]).mean()
    assert accuracy >= least
    assert run.record.metrics[head]["accuracy"] == pytest.approx(accuracy, abs=1e-4)


def test_ink_of_held_out_digits_is_right(run, held_out, split):
    ink = split.test.targets["ink"]
    r2 = 1 - ((held_out["ink"] - ink) ** 2).sum() / ((ink - ink.mean()) ** 2).sum()
    assert r2 >= 0.98
    assert run.record.metrics["ink"]["r2"] == pytest.approx(r2, abs=1e-3)
    assert run.record.metrics["ink"]["mae"] == pytest.approx(np.abs(held_out["ink"] - ink).mean(), abs=1e-3)


def test_vectors_of_held_out_digits_lie_beside_their_own_digit(run, held_out, split):
    vectors, digit = held_out["embedding"], split.test.targets["embedding"]
    similarity = vectors @ vectors.T - 3 * np.eye(len(vectors), dtype=np.float32)
    accuracy = (digit[similarity.argmax(axis=1)] == digit).mean()
    assert accuracy >= 0.95
    assert run.record.metrics["embedding"]["nearest_neighbour_accuracy"] == pytest.approx(accuracy, abs=0.003)


def test_the_run_opens_with_the_digits_spec_and_recipe(run, split):
    opened = Run.open(run.folder)
    assert (opened.spec, opened.record.recipe, opened.record.factory) == (MODEL.spec, MODEL.recipe, MODEL.factory)
    assert np.array_equal(load_file(opened.samples)["image"], split.test.inputs["image"][:64])
