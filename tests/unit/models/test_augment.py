import pytest
import torch

from polyhead.models.augment import Compose, Erase, HorizontalFlip, Jitter, MaskTokens, Shift

ROWS, HEIGHT, WIDTH = 64, 7, 9


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def scene(rows=ROWS, channels=3):
    """Images whose first channel is their own mask: where they stay aligned, both stay equal."""
    mask = torch.randint(0, 5, (rows, HEIGHT, WIDTH), generator=generator(1))
    image = torch.randint(0, 256, (rows, HEIGHT, WIDTH, channels), generator=generator(2)).to(torch.uint8)
    image[..., 0] = mask
    return {"image": image, "other": torch.arange(rows)}, {"region": mask, "label": torch.arange(rows) % 3}


IDS = torch.tensor([[101, 7, 8, 9, 102, 0, 0], [101, 5, 103, 6, 7, 8, 102]])
ATTENTION = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1] * 7])
TEXT = {"input_ids": IDS, "attention_mask": ATTENTION}
SPECIAL = (0, 101, 102, 103)

STEPS = {
    "flip": HorizontalFlip("image", ("region",)),
    "shift": Shift("image", 2, ("region",)),
    "jitter": Jitter("image"),
    "erase": Erase("image", 3, ("region",)),
    "all": Compose(HorizontalFlip("image", ("region",)), Shift("image", 2, ("region",)), Jitter("image")),
}
EACH_STEP = pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@EACH_STEP
def test_the_generator_decides_and_nothing_else(step):
    inputs, targets = scene()
    first = step(inputs, targets, generator(5))
    assert all(same(*pair) for pair in zip(first, step(inputs, targets, generator(5)), strict=True))
    assert not same(first[0], step(inputs, targets, generator(6))[0])
    going_on = generator(5)
    step(inputs, targets, going_on)
    assert not same(first[0], step(inputs, targets, going_on)[0])


@EACH_STEP
def test_what_is_given_is_left_as_it_is(step):
    inputs, targets = scene()
    changed, _ = step(inputs, targets, generator())
    assert same(inputs, scene()[0])
    assert same(targets, scene()[1])
    assert not torch.equal(changed["image"], inputs["image"])


@EACH_STEP
def test_shapes_types_and_other_columns_stay(step):
    inputs, targets = scene()
    changed, moved = step(inputs, targets, generator())
    assert {n: (t.shape, t.dtype) for n, t in changed.items()} == {n: (t.shape, t.dtype) for n, t in inputs.items()}
    assert {n: (t.shape, t.dtype) for n, t in moved.items()} == {n: (t.shape, t.dtype) for n, t in targets.items()}
    assert torch.equal(changed["other"], inputs["other"])
    assert torch.equal(moved["label"], targets["label"])


@pytest.mark.parametrize("name", ["flip", "shift"])
def test_pixels_and_masks_stay_aligned(name):
    inputs, targets = STEPS[name](*scene(), generator())
    assert torch.equal(inputs["image"][..., 0].long(), targets["region"])
    assert not torch.equal(targets["region"], scene()[1]["region"])


@EACH_STEP
def test_a_head_that_is_not_trained_need_not_be_there(step):
    inputs, targets = scene()
    with_mask, _ = step(inputs, targets, generator())
    without, left = step(inputs, {"label": targets["label"]}, generator())
    assert torch.equal(without["image"], with_mask["image"])
    assert list(left) == ["label"]


@pytest.mark.parametrize("step", [HorizontalFlip("image"), Shift("image", 1, ("regoin",)), Erase("image", 2)])
def test_a_mask_that_would_be_left_behind_is_refused(step):
    with pytest.raises(ValueError, match="masks") as caught:
        step(*scene(), generator())
    kind = type(step).__name__
    assert str(caught.value) == (f"{kind} of 'image' moves its pixels, not those of target 'region': name it in masks")


@pytest.mark.parametrize("step", [HorizontalFlip("img"), Shift("img", 1), Jitter("img"), Erase("img", 2)])
def test_an_input_that_is_not_there_is_refused(step):
    with pytest.raises(ValueError, match="img") as caught:
        step(*scene(), generator())
    assert str(caught.value) == "augmentation of 'img', which the batch lacks (it has image, other)"


def test_only_raw_images_are_taken():
    with pytest.raises(ValueError, match="uint8") as caught:
        HorizontalFlip("image")({"image": torch.zeros(2, 3, 8, 8)}, {}, generator())
    assert str(caught.value) == (
        "augmentation of 'image': an image is uint8 [batch, height, width, channels], got torch.float32 [2, 3, 8, 8]"
    )


# Flip


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_all_rows_or_none_are_flipped(probability):
    inputs, targets = scene()
    image = HorizontalFlip("image", ("region",), probability)(inputs, targets, generator())[0]["image"]
    assert torch.equal(image, inputs["image"].flip(2) if probability else inputs["image"])


def test_about_half_the_rows_are_flipped_each_as_a_whole():
    inputs, targets = scene(400)
    image = STEPS["flip"](inputs, targets, generator())[0]["image"]
    kept = (image == inputs["image"]).flatten(1).all(dim=1)
    flipped = (image == inputs["image"].flip(2)).flatten(1).all(dim=1)
    assert (kept | flipped).all()
    assert 160 < kept.sum() < 240


# Shift


def test_every_row_moves_by_whole_pixels_and_the_edge_fills():
    inputs, targets = scene(200)
    image = STEPS["shift"](inputs, targets, generator())[0]["image"]
    found = set()
    for before, after in zip(inputs["image"], image, strict=True):
        padded = torch.nn.functional.pad(before.permute(2, 0, 1)[None].float(), (2, 2, 2, 2), mode="replicate")
        wanted = after.permute(2, 0, 1).float()
        moves = [(y, x) for y in range(5) for x in range(5)]
        found |= {(2 - y, 2 - x) for y, x in moves if torch.equal(padded[0, :, y : y + HEIGHT, x : x + WIDTH], wanted)}
    assert found == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}


def test_a_shift_by_0_changes_nothing():
    inputs, targets = scene()
    assert torch.equal(Shift("image", 0, ("region",))(inputs, targets, generator())[0]["image"], inputs["image"])


# Jitter


def test_no_jitter_changes_nothing():
    inputs, targets = scene()
    assert torch.equal(Jitter("image", 0.0, 0.0)(inputs, targets, generator())[0]["image"], inputs["image"])


def test_brightness_multiplies_within_its_bounds():
    image = torch.full((300, 4, 4, 1), 100, dtype=torch.uint8)
    changed = Jitter("image", brightness=0.3, contrast=0.9)({"image": image}, {}, generator())[0]["image"]
    level = changed.flatten(1)[:, 0]
    assert torch.equal(changed, level[:, None, None, None].expand_as(changed))  # contrast of a plain image is none
    assert 70 <= level.min() < 75
    assert 125 < level.max() <= 130


def test_contrast_scales_the_distance_to_the_mean():
    image = torch.tensor([80, 120], dtype=torch.uint8).view(1, 1, 2, 1).repeat(300, 1, 1, 1)
    changed = Jitter("image", brightness=0.0, contrast=0.5)({"image": image}, {}, generator())[0]["image"]
    low, high = changed.flatten(1).float().T
    assert ((low + high) / 2 - 100).abs().max() <= 0.5
    assert 10 <= ((high - low) / 2).min() < 12
    assert 28 < ((high - low) / 2).max() <= 30


def test_light_stays_within_what_a_pixel_can_hold():
    inputs = {"image": torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 2, 1).repeat(50, 1, 1, 1)}
    dark, bright = Jitter("image", 0.9, 0.9)(inputs, {}, generator())[0]["image"].flatten(1).T
    assert (dark <= bright).all()  # nothing wrapped around


# Erase


def test_a_square_of_one_value_whose_mask_is_missing():
    inputs = {"image": torch.full((200, HEIGHT, WIDTH, 3), 9, dtype=torch.uint8)}
    targets = {"region": torch.ones(200, HEIGHT, WIDTH, dtype=torch.int64)}
    step = Erase("image", 3, ("region",), probability=1.0, value=77)
    changed, moved = step(inputs, targets, generator())
    hole = moved["region"] == -1
    assert torch.equal(changed["image"] == 77, hole[..., None].expand_as(changed["image"]))
    assert torch.equal(changed["image"] == 9, ~hole[..., None].expand_as(changed["image"]))
    assert torch.equal(moved["region"], torch.where(hole, -1, 1))
    rows, columns = hole.any(dim=2).sum(dim=1), hole.any(dim=1).sum(dim=1)
    assert torch.equal(hole.flatten(1).sum(dim=1), rows * columns)  # a rectangle
    assert (set(rows.tolist()), set(columns.tolist())) == ({2, 3}, {2, 3})  # cut where it stands over an edge
    assert hole.any(dim=0).all()  # anywhere


def test_about_half_the_rows_are_erased():
    inputs, targets = scene(400)
    moved = STEPS["erase"](inputs, targets, generator())[1]["region"]
    assert 160 < (moved == -1).flatten(1).any(dim=1).sum() < 240


# Tokens


def test_only_words_are_hidden():
    step = MaskTokens(mask=103, special=SPECIAL, probability=1.0)
    inputs, targets = step(TEXT, {"label": torch.tensor([1, 2])}, generator())
    assert inputs["input_ids"].tolist() == [[101, 103, 103, 103, 102, 0, 0], [101, 103, 103, 103, 103, 103, 102]]
    assert torch.equal(inputs["attention_mask"], ATTENTION)
    assert targets["label"].tolist() == [1, 2]


def test_padding_is_never_hidden_whatever_it_holds():
    padded = {**TEXT, "input_ids": torch.where(ATTENTION == 0, 55, IDS)}
    inputs, _ = MaskTokens(103, SPECIAL, probability=1.0)(padded, {}, generator())
    assert inputs["input_ids"][0, 5:].tolist() == [55, 55]


def test_tokens_are_hidden_with_their_probability():
    ids = torch.randint(200, 900, (100, 100), generator=generator(3))
    columns = {"q_ids": ids, "q_mask": torch.ones_like(ids)}
    step = MaskTokens(103, SPECIAL, probability=0.15, ids="q_ids", attention="q_mask")
    hidden = step(columns, {}, generator())[0]["q_ids"]
    assert 0.13 < (hidden == 103).float().mean() < 0.17
    assert torch.equal(hidden[hidden != 103], ids[hidden != 103])
    assert torch.equal(step(columns, {}, generator())[0]["q_ids"], hidden)
    assert torch.equal(MaskTokens(103, SPECIAL, 0.0, "q_ids", "q_mask")(columns, {}, generator())[0]["q_ids"], ids)


# One after the other


def test_steps_follow_each_other_from_one_generator():
    inputs, targets = scene()
    flip, shift = STEPS["flip"], STEPS["shift"]
    one = generator(4)
    expected = shift(*flip(inputs, targets, one), one)
    assert all(same(*pair) for pair in zip(Compose(flip, shift)(inputs, targets, generator(4)), expected, strict=True))


def test_no_step_is_no_change():
    inputs, targets = scene()
    assert Compose()(inputs, targets, generator()) == (inputs, targets)
