import subprocess
import sys

import numpy as np
import pytest

from polyhead.models.zoo.data import scenes


@pytest.fixture(scope="module")
def parts():
    return scenes.split(0)


@pytest.fixture(scope="module")
def train(parts):
    return parts.train


def alone(rows, shape):
    """Masks of the scenes that show one shape of this kind, not cut by the picture's edge."""
    index = scenes.REGIONS.index(shape)
    masks = rows.region[(rows.count[:, 0] == 1) & (rows.region.max(axis=(1, 2)) == index)] > 0
    edge = masks[:, [0, -1]].any(axis=(1, 2)) | masks[:, :, [0, -1]].any(axis=(1, 2))
    return masks[~edge]


def box(mask):
    """Rows and columns that a mask spans."""
    return mask[np.ix_(mask.any(axis=1), mask.any(axis=0))]


# Columns


def test_there_is_a_target_per_head(parts):
    assert [len(rows) for rows in parts] == [1500, 200, 300]
    for rows in parts:
        count = len(rows)
        columns = {name: getattr(rows, name) for name in ("image", "region", "backdrop", "present", "count")}
        assert {name: (str(array.dtype), array.shape) for name, array in columns.items()} == {
            "image": ("uint8", (count, 48, 48, 3)),
            "region": ("int64", (count, 48, 48)),
            "backdrop": ("int64", (count,)),
            "present": ("float32", (count, 5)),
            "count": ("float32", (count, 1)),
        }
        assert np.bincount(rows.backdrop).tolist() == [count / 5] * 5
        assert set(np.unique(rows.region)) == set(range(6))
        assert set(np.unique(rows.count)) == {0, 1, 2, 3, 4}


def test_present_and_count_agree_with_the_regions(parts):
    for rows in parts:
        for region, present, (count,) in zip(rows.region, rows.present, rows.count, strict=True):
            seen = set(np.unique(region)) - {0}
            assert {i + 1 for i, there in enumerate(present) if there} == seen
            assert len(seen) <= count
            assert (count == 0) == (not seen)


def test_shapes_and_counts_are_balanced(train):
    assert 0.3 < train.present.mean(axis=0).min() <= train.present.mean(axis=0).max() < 0.5
    shares = np.bincount(train.count[:, 0].astype(int)) / len(train)
    assert 0.03 < shares[0] < 0.08
    assert shares[1:].min() > 0.15


# Shapes


@pytest.mark.parametrize(
    ("shape", "least", "most"),
    [
        ("disc", 0.68, 0.90),
        ("square", 0.47, 1.01),
        ("triangle", 0.42, 0.62),
        ("ring", 0.52, 0.66),
        ("cross", 0.40, 0.72),
    ],
)
def test_a_shape_fills_its_box_as_its_geometry_has_it(train, shape, least, most):
    masks = alone(train, shape)
    assert len(masks) > 10
    fill = [box(mask).mean() for mask in masks]
    assert least < min(fill) <= max(fill) < most


def test_a_ring_has_a_hole_and_a_disc_has_none(train):
    for shape, filled in (("ring", False), ("disc", True), ("cross", True)):
        for mask in alone(train, shape):
            rows, columns = np.nonzero(mask)
            assert mask[round(rows.mean()), round(columns.mean())] == filled


def test_squares_and_triangles_are_turned(train):
    fills = [box(mask).mean() for mask in alone(train, "square")]
    assert max(fills) - min(fills) > 0.3  # 1 upright, 1/2 on its tip


def test_sizes_vary_and_nothing_is_too_small_to_tell(train):
    areas = [int(mask.sum()) for shape in scenes.SHAPES for mask in alone(train, shape)]
    assert min(areas) >= 30
    assert max(areas) > 5 * min(areas)


def test_shapes_lie_over_one_another(train):
    """Discs whose area is smaller than their box says are covered in part."""
    discs = train.region == scenes.REGIONS.index("disc")
    covered = [box(mask).mean() < 0.68 for mask in discs[(train.count[:, 0] > 1) & discs.any(axis=(1, 2))]]
    assert 0.1 < np.mean(covered) < 0.9


# Pictures


def test_a_shape_stands_out_where_the_region_says(train):
    single = train.count[:, 0] == 1
    differences = [
        np.linalg.norm(image[region > 0].mean(axis=0) - image[region == 0].mean(axis=0))
        for image, region in zip(train.image[single].astype(float), train.region[single], strict=True)
    ]
    assert min(differences) > 20
    assert np.median(differences) > 60


def test_colour_tells_neither_shape_nor_backdrop(train):
    pixels = train.image.astype(float)
    means = [pixels[train.region == index].mean(axis=0) for index in range(len(scenes.REGIONS))]
    grounds = [pixels[train.backdrop == index].mean(axis=(0, 1, 2)) for index in range(len(scenes.BACKDROPS))]
    for colours in (means, grounds):
        assert np.ptp(colours, axis=0).max() < 20
    assert pixels.std() > 50


def test_pictures_are_noisy_to_different_degrees(train):
    plain = train.image[(train.backdrop == 0) & (train.count[:, 0] == 0)].astype(float)
    noise = plain.std(axis=(1, 2)).mean(axis=1)
    assert len(noise) > 5
    assert 3 < noise.min() < 8 < 12 < noise.max() < 21


# Seeds


def test_the_same_seed_gives_the_same_rows(parts):
    again = scenes.rows("validation", 0, 200)
    for name in ("image", "region", "backdrop", "present", "count"):
        assert np.array_equal(getattr(again, name), getattr(parts.validation, name))


def test_no_picture_comes_twice_in_any_part_or_seed(parts):
    other = scenes.rows("test", 1, 50)
    images = [image.tobytes() for rows in (*parts, other) for image in rows.image]
    assert len(set(images)) == len(images) == 2050


@pytest.mark.parametrize("count", [0, 1, 7])
def test_any_number_of_rows(count):
    rows = scenes.rows("test", 0, count)
    assert (len(rows), rows.present.shape, rows.region.shape) == (count, (count, 5), (count, 48, 48))


def test_an_unknown_part_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="part 'dev' is not in the scenes: use one of train, validation, test"):
        scenes.rows("dev", 0, 3)


def test_generating_needs_no_torch():
    code = "import sys, polyhead.models.zoo.data.scenes as s; s.rows('test', 0, 3); print({'torch'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
