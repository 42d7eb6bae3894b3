"""Plots show the numbers they are given, with titles and units, and draw any text without a warning."""

import re

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex

from polyhead.models.page import curves, verdicts
from polyhead.models.page.canvas import (
    COLOURS,
    DPI,
    WIDTH,
    breadth,
    columns,
    figure,
    ink,
    pixels,
    png,
    printable,
    short,
    styled,
)

NAN = float("nan")


@pytest.fixture(autouse=True)
def _style():
    with styled():
        yield


def texts(axis):
    return {(text.get_position()): text.get_text() for text in axis.texts}


def ticks(axis, which):
    return [label.get_text() for label in getattr(axis, f"get_{which}ticklabels")()]


def line(axis, label):
    return next(line for line in axis.lines if line.get_label() == label)


# Canvas


def test_the_style_is_gone_afterwards_and_a_users_own_does_not_come_in():
    with mpl.rc_context({"font.family": ["serif"], "figure.dpi": 33}):
        before = dict(mpl.rcParams)
        with styled():
            assert mpl.rcParams["font.family"] == ["DejaVu Sans"]
            assert mpl.rcParams["figure.constrained_layout.use"]
        assert dict(mpl.rcParams) == before


def test_pixels_are_those_of_the_size_in_inches_and_a_png_gives_them_back(tmp_path):
    drawn = figure(2.0)
    drawn.text(0.5, 0.5, "x")
    image = pixels(drawn)
    assert image.shape == (round(2 * DPI), round(WIDTH * DPI), 3)
    assert image.dtype == np.uint8
    assert len(np.unique(image)) > 1
    path = tmp_path / "image.png"
    path.write_bytes(png(image))
    np.testing.assert_allclose(mpl.image.imread(path)[..., :3] * 255, image, atol=0.5)
    assert png(image) == png(image.copy())


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("plain", "plain"),
        ("dimmé Größe Ωμ", "dimmé Größe Ωμ"),
        ("$5 or $6", r"\$5 or \$6"),
        ("日本", "U+65E5U+672C"),
        ("a\U000e0041b", "ab"),  # a mark without a shape
        ("tab\tbell\x07", "tabbell"),
    ],
)
def test_what_the_font_lacks_is_written_as_its_code_point(text, drawn):
    assert printable(text) == drawn


def test_any_text_draws_without_a_warning_about_glyphs():
    drawn = figure(1.0)
    axis = drawn.subplots()
    axis.set_title(printable("😀🏳️‍🌈 日本 $x^2$ \\$ $ é a\u0301 \u202e العربية 𝒳 \U000e0041"))
    pixels(drawn)


def test_long_names_keep_both_ends():
    assert short("short") == "short"
    assert re.fullmatch("living_.*….*left", short("living_room_ceiling_light_left", 1.0))
    for letter in "xWi日":
        assert 1.2 < breadth(short(letter * 100)) <= 1.7


def test_a_legend_has_as_many_columns_as_fit():
    assert columns(["a"]) == 1
    assert columns(list("abc")) == 3
    assert columns(["W" * 15] * 9) == 2
    assert columns(["W" * 100] * 9) == 1


def test_text_is_white_on_dark_and_black_on_light():
    assert [ink(np.array(colour)) for colour in ([0, 0, 0, 1], [1, 1, 1, 1], [0.1, 0.1, 0.4, 1])] == [
        "white",
        "black",
        "white",
    ]


# Curves


def test_learning_shows_losses_above_metrics_and_the_best_epoch():
    epochs = [1, 2, 3]
    drawn = curves.learning(
        "a: learning", epochs, {"training": [3.0, 2.0, 1.0]}, {"mae": [1.0, 0.5, NAN]}, unit="°C", best=2
    )
    upper, lower = drawn.axes
    np.testing.assert_array_equal(line(upper, "training").get_xydata(), [[1, 3], [2, 2], [3, 1]])
    np.testing.assert_array_equal(line(lower, "mae").get_ydata(), [1, 0.5, NAN])
    assert [line(axis, "best epoch, 2").get_xdata()[0] for axis in drawn.axes] == [2, 2]
    assert (upper.get_ylabel(), lower.get_ylabel(), lower.get_xlabel()) == ("loss", "mae (°C)", "epoch")
    assert drawn.get_suptitle() == "a: learning"


def test_several_metrics_share_an_axis_and_none_leaves_only_the_loss():
    both = curves.learning("a", [1, 2], {"training": [1, 2]}, {"accuracy": [0, 1], "f1": [0, 1]})
    assert both.axes[1].get_ylabel() == "metric"
    assert len(curves.learning("a", [1, 2], {"training": [1, 2]}, {}).axes) == 1


def test_a_wide_range_is_logarithmic_and_one_with_zero_is_not():
    wide = curves.lines("t", "y", [1, 2], {"a": [1e-5, 1e-3]})
    assert wide.axes[0].get_yscale() == "log"
    assert curves.lines("t", "y", [1, 2], {"a": [0.0, 1e3]}).axes[0].get_yscale() == "linear"
    assert curves.lines("t", "y", [1, 2], {"a": [NAN, NAN]}).axes[0].get_yscale() == "linear"


def test_many_lines_are_told_apart_and_all_are_in_the_legend():
    drawn = curves.lines("t", "weight", [1, 2], {f"head{i}": [i, i] for i in range(20)})
    looks = {(line.get_color(), line.get_linestyle()) for line in drawn.axes[0].lines}
    assert len(looks) == 20
    assert [text.get_text() for text in drawn.legends[0].texts] == [f"head{i}" for i in range(20)]
    assert drawn.axes[0].get_ylabel() == "weight"


def test_one_epoch_is_a_point_and_two_hundred_are_a_line():
    single = curves.lines("t", "y", [1], {"a": [3.0]}).axes[0]
    assert single.lines[0].get_marker() == "o"
    assert single.get_xticks().tolist() == [1]
    many = curves.lines("t", "y", list(range(200)), {"a": [1.0] * 200}).axes[0]
    assert many.lines[0].get_marker() in ("None", None)
    assert all(float(tick).is_integer() for tick in many.get_xticks())


def test_cosines_are_coloured_and_numbered():
    matrix = np.array([[NAN, -0.5, 0.0], [-0.5, NAN, 0.999], [0.0, 0.999, NAN]])
    axis = curves.cosines("t", ["a", "b", "c"], matrix).axes[0]
    np.testing.assert_array_equal(np.ma.filled(axis.images[0].get_array(), NAN), matrix)
    assert axis.images[0].get_clim() == (-1, 1)
    assert texts(axis) == {
        (1, 0): "-0.50",
        (2, 0): "0.00",
        (0, 1): "-0.50",
        (2, 1): "1.00",
        (0, 2): "0.00",
        (1, 2): "1.00",
    }
    assert ticks(axis, "x") == ticks(axis, "y") == ["a", "b", "c"]


def test_cosines_of_many_tasks_have_colours_alone():
    axis = curves.cosines("t", [f"t{i}" for i in range(20)], np.zeros((20, 20))).axes[0]
    assert not axis.texts
    assert len(ticks(axis, "x")) == 20


# Verdicts


def test_a_confusion_matrix_shows_counts_coloured_by_share_of_the_row():
    counts = np.array([[8, 2, 0], [1, 1, 0], [0, 0, 0]])
    axis = verdicts.confusion_matrix("t", counts, ("a", "b", "c")).axes[0]
    np.testing.assert_allclose(axis.images[0].get_array(), [[0.8, 0.2, 0], [0.5, 0.5, 0], [0, 0, 0]])
    assert texts(axis) == {(0, 0): "8", (1, 0): "2", (0, 1): "1", (1, 1): "1"}
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")
    assert ticks(axis, "y") == ["a", "b", "c"]


@pytest.mark.parametrize(("labels", "numbered", "named"), [(20, True, True), (21, False, True), (60, False, False)])
def test_large_confusion_matrices_show_colours_alone(labels, numbered, named):
    names = [f"label {i}" for i in range(labels)]
    axis = verdicts.confusion_matrix("t", np.ones((labels, labels), dtype=np.int64), names).axes[0]
    assert bool(axis.texts) == numbered
    assert ("label 0" in ticks(axis, "x")) == named


def test_bars_are_as_long_as_the_scores_and_name_the_support():
    scores = {"precision": np.array([0.5, NAN]), "F1": np.array([0.25, NAN])}
    drawn = verdicts.bars("t", "share", scores, ("a", "b"), np.array([7, 0]))
    axis = drawn.axes[0]
    lengths = [[patch.get_width() for patch in container] for container in axis.containers]
    assert lengths == [[0.5, 0.0], [0.25, 0.0]]
    assert ticks(axis, "y") == ["a (7)", "b (0)"]
    assert sorted(texts(axis).values()) == [" 0.25", " none"]
    assert [text.get_text() for text in drawn.legends[0].texts] == ["precision", "F1"]
    assert axis.get_xlabel() == "share"


def test_of_many_labels_the_lowest_are_shown_and_the_title_says_so():
    values = np.linspace(1, 0, 100)
    axis = verdicts.bars("t", "share", {"F1": values}, [f"l{i}" for i in range(100)], None).axes[0]
    assert ticks(axis, "y") == [f"l{i}" for i in range(70, 100)]
    assert axis.figure.get_suptitle() == "t; the 30 lowest of 100"


def test_a_regression_is_a_point_per_row_and_the_line_of_agreement():
    predicted, true = np.array([[1.0], [2.5]]), np.array([[1.0], [2.0]])
    axis = verdicts.regression("t", predicted, true, "°C").axes[0]
    np.testing.assert_array_equal(axis.collections[0].get_offsets(), [[1, 1], [2, 2.5]])
    diagonal = line(axis, "y = x")
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("true value (°C)", "predicted value (°C)")
    assert axis.get_xlim() == axis.get_ylim()


def test_several_values_have_a_colour_each_and_equal_ones_still_have_an_extent():
    several = verdicts.regression("t", np.ones((3, 2)), np.ones((3, 2)), "").axes[0]
    assert [c.get_label() for c in several.collections] == ["value 0", "value 1"]
    assert several.get_xlim() == (0, 2)


def test_vectors_have_a_colour_per_class_and_the_share_of_each_axis():
    points, classes = np.array([[0.0, 1], [2, 3], [4, 5]]), np.array([0, 2, 0])
    drawn = verdicts.vectors("t", points, np.array([0.75, 0.2]), classes, ["a", "b", "c"])
    axis = drawn.axes[0]
    assert {c.get_label(): c.get_offsets().tolist() for c in axis.collections} == {"a": [[0, 1], [4, 5]], "c": [[2, 3]]}
    assert [to_hex(c.get_facecolor()[0]).upper() for c in axis.collections] == [COLOURS[0], COLOURS[2]]
    assert axis.get_xlabel() == "first principal component (75% of the variance)"
    assert axis.get_ylabel() == "second principal component (20%)"


def test_many_classes_have_no_legend():
    classes = np.arange(50)
    drawn = verdicts.vectors("t", np.zeros((50, 2)), np.zeros(2), classes, [f"class {i}" for i in classes])
    assert not drawn.legends


@pytest.mark.parametrize("channels", [1, 3])
def test_masks_stand_beside_their_image(channels):
    images = np.arange(2 * 4 * 5 * channels, dtype=np.uint8).reshape(2, 4, 5, channels)
    true = np.full((2, 4, 5), -1)
    predicted = np.ones((2, 4, 5), dtype=np.int64)
    drawn = verdicts.masks("t", images, true, predicted, ("a", "b"))
    image, wanted, found = drawn.axes[3:6]
    np.testing.assert_array_equal(image.images[0].get_array(), images[1].squeeze())
    np.testing.assert_array_equal(wanted.images[0].get_array(), true[1])
    np.testing.assert_array_equal(found.images[0].get_array(), predicted[1])
    assert to_hex(wanted.images[0].to_rgba(-1)) == verdicts.UNKNOWN
    assert to_hex(found.images[0].to_rgba(1)).upper() == COLOURS[1]
    assert [text.get_text() for text in drawn.legends[0].texts] == ["a", "b"]


def test_masks_of_many_labels_still_draw():
    drawn = verdicts.masks(
        "t", np.zeros((1, 4, 4, 3), np.uint8), np.zeros((1, 4, 4)), np.zeros((1, 4, 4)), "abcdefghij" * 4
    )
    assert not drawn.legends
    assert pixels(drawn).std() > 0


# Room

LONG = [f"{letter * 20}{index:02d}{letter * 20}" for index, letter in enumerate("xWe_mGoTkQ" * 4)]


PLOTS = {
    "lines": lambda names, n: curves.lines("t", "y", [1, 2], {name: [1, 2] for name in names}),
    "cosines": lambda names, n: curves.cosines("t", names, np.full((n, n), 0.12345)),
    "confusion": lambda names, n: verdicts.confusion_matrix(LONG[3] * 2, np.full((n, n), 12345), names),
    "bars": lambda names, n: verdicts.bars("t", "x", dict.fromkeys("ab", np.ones(n)), names, np.full(n, 100_000)),
    "vectors": lambda names, n: verdicts.vectors("t", np.eye(n, 2), np.ones(2), np.arange(n), names),
    "masks": lambda names, n: verdicts.masks(
        LONG[0], np.zeros((n % 4 + 1, 4, 4 + n, 1)), *np.zeros((2, n % 4 + 1, 4, 4 + n)), names
    ),
    "learning": lambda names, n: curves.learning(
        LONG[2], [1, 2], {"a": [1e9, 1]}, {names[-1]: [1e-9, 1]}, LONG[n % 10][-9:], 2
    ),
    "regression": lambda names, n: verdicts.regression("t", 1e9 * np.ones((2, n)), np.zeros((2, n)), "long unit"),
}


@pytest.mark.parametrize("count", [1, 2, 8, 20, 40])
@pytest.mark.parametrize("kind", PLOTS)
def test_nothing_is_cut_off_however_many_and_long_the_names(kind, count):
    image = pixels(PLOTS[kind](LONG[:count], count))
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert (edge == 255).all()
