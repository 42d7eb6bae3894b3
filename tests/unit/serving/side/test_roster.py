"""Which version is the default, and which was."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from polyhead.serving.errors import LaunchError
from polyhead.serving.served import Served
from polyhead.serving.side.roster import Roster, in_order, version_key


@pytest.mark.parametrize(
    "ordered",
    [
        ["1.0", "1.9", "1.10", "2.0"],
        ["1", "1.0", "1.0.1", "1.1"],
        ["2.0a1", "2.0rc1", "2.0", "2.0.1"],
        ["2024-01-31", "2024-02-01", "2024-10-01"],
        ["v1", "v2", "v10"],
    ],
)
def test_versions_are_ordered_number_by_number(ordered: list[str]):
    mixed = random.Random(0).sample(ordered, len(ordered))
    assert sorted(mixed, key=version_key) == ordered


@dataclass(frozen=True)
class Spec:
    name: str
    version: str


@dataclass(frozen=True)
class Named:
    """As much of a bundle as is needed to put it in order."""

    spec: Spec

    @property
    def title(self) -> str:
        return f"{self.spec.name}/{self.spec.version}"


def named(*titles: str) -> list[Named]:
    return [Named(Spec(*title.split("/"))) for title in titles]


def test_of_each_model_the_highest_version_comes_first_whatever_order_they_were_given_in():
    given = named("b/1.9", "a/1", "b/1.10", "a/3", "b/1.2", "a/2")
    assert [one.title for one in in_order(given)] == ["b/1.10", "b/1.9", "b/1.2", "a/3", "a/2", "a/1"]


def test_a_version_that_the_settings_name_comes_first_and_one_that_is_not_there_is_refused():
    given = named("b/1.9", "a/1", "b/1.10", "a/2")
    assert [one.title for one in in_order(given, ["b/1.9"])] == ["b/1.9", "b/1.10", "a/2", "a/1"]
    with pytest.raises(LaunchError, match=r"polyhead_defaults: a/7 is not among the bundles: there are b/1.9, a/1"):
        in_order(given, ["a/7"])
    with pytest.raises(LaunchError, match=r"polyhead_defaults: several versions of b"):
        in_order(given, ["b/1.9", "b/1.10"])


@pytest.fixture
def served(mlp, picture, copy_of):
    def make(example) -> Served:
        return Served(example.bundle, example.bundle.manifest.graphs[0].id, "onnxruntime", "cpu", "it is there", 1, 1)

    return make(mlp), make(picture)


def test_the_first_version_is_the_default_until_another_is_promoted(served):
    roster, (mlp, picture) = Roster(), served
    first, second = roster.add(mlp), roster.add(picture)
    assert (first.default, second.default) == (True, True), "of two models"
    assert roster.find("mlp").bundle is mlp.bundle
    assert roster.find("mlp", "1.0").bundle is mlp.bundle
    assert roster.find("mlp", "2.0") is None
    assert roster.find("nobody") is None
    assert [entry.name for entry in roster.entries()] == ["mlp", "picture"]
    roster.leave(first, leaving=True)
    assert roster.find("mlp").leaving
    roster.remove(first)
    assert [entry.name for entry in roster.entries()] == ["picture"]
    assert roster.previous("picture") is None
