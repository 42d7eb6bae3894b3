"""Small pictures of shapes before a backdrop, generated: which shape is where, how many, and before what.

Discs, squares, triangles, rings and crosses of any size, turn, colour and filling lie over one another before a plain,
shaded, striped, chequered or dotted ground, with noise on top. Colours are drawn from the same palette for shapes and
backdrops, and shapes may be striped or shaded themselves: no head can go by colour, and none by a single patch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

__all__ = ["BACKDROPS", "PARTS", "REGIONS", "SHAPES", "SIZE", "Parts", "Scenes", "rows", "split"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

SIZE = 48  # pixels, height and width
SHAPES = ("disc", "square", "triangle", "ring", "cross")
REGIONS = ("background", *SHAPES)
BACKDROPS = ("plain", "gradient", "stripes", "checker", "dots")
PARTS = ("train", "validation", "test")

MOST = 4  # shapes in a scene
RADIUS = (6.5, 13.0)  # pixels
VISIBLE = 0.55  # of every shape stays in sight when the others lie over it, so that it can be told
EMPTY = 0.05  # of all scenes have no shape
CONTRAST = 70.0  # least distance in RGB of a shape from what it may lie on
FAINT = 55.0  # least distance in RGB of a backdrop's two colours
DRAWS = 60  # for one shape or colour, before the picture goes without it

ROW, COLUMN = np.mgrid[:SIZE, :SIZE].astype(np.float32)


@dataclass(frozen=True)
class Scenes:
    """Pictures with a target per head, in columns of equal length.

    `image` uint8 `[rows, 48, 48, 3]`, RGB; `region` int64 `[rows, 48, 48]`, index in `REGIONS`; `backdrop` int64
    `[rows]`, index in `BACKDROPS`; `present` float32 `[rows, shapes]`, 0 or 1 for each of `SHAPES`; `count` float32
    `[rows, 1]`, how many shapes there are, 0 to 4.
    """

    image: Array
    region: Array
    backdrop: Array
    present: Array
    count: Array

    def __len__(self) -> int:
        return len(self.image)


class Parts(NamedTuple):
    """Scenes to learn from, to stop by, and held out until the end."""

    train: Scenes
    validation: Scenes
    test: Scenes


def rows(part: str, seed: int, count: int) -> Scenes:
    """So many scenes of one part, the backdrops in equal shares; the same for the same seed.

    Raises:
        ValueError: there is no such part.
    """
    if part not in PARTS:
        raise ValueError(f"part {part!r} is not in the scenes: use one of {', '.join(PARTS)}")
    generator = np.random.default_rng([seed, PARTS.index(part)])
    backdrop = generator.permutation(np.arange(count, dtype=np.int64) % len(BACKDROPS))
    image = np.empty((count, SIZE, SIZE, 3), np.uint8)
    region = np.empty((count, SIZE, SIZE), np.int64)
    shapes = np.empty((count, 1), np.float32)
    for row in range(count):
        image[row], region[row], shapes[row] = _scene(generator, BACKDROPS[backdrop[row]])
    seen = [(region == index).any(axis=(1, 2)) for index in range(1, len(REGIONS))]
    return Scenes(image, region, backdrop, np.stack(seen, axis=1).astype(np.float32), shapes)


def split(seed: int, train: int = 1500, validation: int = 200, test: int = 300) -> Parts:
    """The three parts, drawn independently from the same kind of scenes."""
    return Parts(rows("train", seed, train), rows("validation", seed, validation), rows("test", seed, test))


def _scene(generator: np.random.Generator, backdrop: str) -> tuple[Array, Array, int]:
    """One picture, its regions and the number of its shapes."""
    one, two = _colours(generator)
    weight = _pattern(generator, backdrop)[..., None]
    picture = one + (two - one) * weight
    layers = np.zeros((SIZE, SIZE), np.int64)  # which shape is on top, counted from 1
    kinds, colours = [0], [one, two]
    areas = [0]
    for _ in range(0 if generator.random() < EMPTY else 1 + int(generator.integers(MOST))):
        kind = int(generator.integers(len(SHAPES)))
        placed = _placed(generator, SHAPES[kind], layers, np.array(areas))
        colour = _distinct(generator, colours)
        if placed is None or colour is None:
            continue
        distance, radius = placed
        layers[distance <= 0] = len(kinds)
        areas.append(int((distance <= 0).sum()))
        kinds.append(kind + 1)
        colours.append(colour)
        cover = np.clip(0.5 - distance * radius, 0, 1)[..., None]
        picture += cover * (_filled(generator, colour) - picture)
    noise = generator.uniform(4, 18) * generator.standard_normal(picture.shape, np.float32)
    picture = np.clip(picture * generator.uniform(0.8, 1.1) + noise, 0, 255)
    return np.rint(picture).astype(np.uint8), np.array(kinds)[layers], len(kinds) - 1


def _colours(generator: np.random.Generator) -> tuple[Array, Array]:
    """Two colours of a backdrop that can be told apart, but not more."""
    one = generator.uniform(30, 225, 3)
    step = generator.standard_normal(3)
    step *= generator.uniform(FAINT, 2 * FAINT) / np.linalg.norm(step)
    return one, np.where((one + step < 0) | (one + step > 255), one - step, one + step)


def _distinct(generator: np.random.Generator, others: list[Array]) -> Array | None:
    """A colour that none of the others comes close to; None where none was found."""
    for _ in range(DRAWS):
        colour: Array = generator.uniform(20, 235, 3)
        if min(float(np.linalg.norm(colour - other)) for other in others) >= CONTRAST:
            return colour
    return None


def _turned(generator: np.random.Generator, row: float, column: float) -> tuple[Array, Array]:
    """Coordinates of every pixel from this centre, turned by any angle."""
    angle = generator.uniform(0, 2 * np.pi)
    down, right = ROW - np.float32(row), COLUMN - np.float32(column)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cosine * right + sine * down, cosine * down - sine * right


def _pattern(generator: np.random.Generator, backdrop: str) -> Array:
    """How much of a backdrop's second colour each pixel has, 0 to 1."""
    u, v = _turned(generator, generator.uniform(0, SIZE), generator.uniform(0, SIZE))
    return PATTERN[backdrop](u, v, generator.uniform(6, 14))


def _placed(generator: np.random.Generator, shape: str, layers: Array, areas: Array) -> tuple[Array, float] | None:
    """Signed distance of every pixel from a new shape, in radii, and its radius; None where it would hide others."""
    for _ in range(DRAWS):
        radius = float(generator.uniform(*RADIUS))
        row, column = generator.uniform(radius * 0.6, SIZE - radius * 0.6, 2)
        u, v = _turned(generator, row, column)
        distance = DISTANCE[shape](u / radius, v / radius)
        left = np.bincount(layers[distance > 0], minlength=len(areas))
        if (left >= VISIBLE * areas).all():
            return distance, radius
    return None


def _filled(generator: np.random.Generator, colour: Array) -> Array:
    """A shape's colour at every pixel: even, shaded or striped."""
    u, _ = _turned(generator, SIZE / 2, SIZE / 2)
    depth = generator.uniform(15, 45)
    filling = int(generator.integers(3))
    period = generator.uniform(4, 8) if filling == 2 else 60
    wave: Array = depth * np.sin(2 * np.pi / period * u) if filling else np.zeros_like(u)
    return colour + wave[..., None]


def _soft(wave: Array) -> Array:
    """A wave from -1 to 1 as two levels, 0 and 1, with a soft edge."""
    return np.clip(wave * 2 + 0.5, 0, 1)


def _dots(u: Array, v: Array, period: float) -> Array:
    """How much each pixel is of a dot, in a grid of them."""
    across, down = ((axis + period / 2) % period - period / 2 for axis in (u, v))  # from the nearest dot
    return np.clip(period * 0.3 - np.hypot(across, down) + 0.5, 0, 1)


PATTERN: dict[str, Callable[[Array, Array, float], Array]] = {
    "plain": lambda u, _, __: np.zeros_like(u),
    "gradient": lambda u, _, __: (u - u.min()) / (u.max() - u.min()),
    "stripes": lambda u, _, period: _soft(np.sin(2 * np.pi / period * u)),
    "checker": lambda u, v, period: _soft(4 * np.sin(np.pi / period * u) * np.sin(np.pi / period * v)),
    "dots": _dots,
}
DISTANCE: dict[str, Callable[[Array, Array], Array]] = {  # from a shape of radius 1, negative inside
    "disc": lambda u, v: np.hypot(u, v) - 0.9,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) - 0.8,
    "triangle": lambda u, v: np.maximum(v, np.abs(u) * (3**0.5 / 2) - v / 2) - 0.55,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.75) - 0.25,
    "cross": lambda u, v: np.maximum(
        np.maximum(np.abs(u), np.abs(v)) - 1,
        np.minimum(np.abs(u), np.abs(v)) - 0.32,
    ),
}
