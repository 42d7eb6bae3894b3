import pytest
import torch

from polyhead.models.heads import Embedding, Logits, Regression, build_head
from polyhead.models.spec import ModelSpec, SpecError
from tests.kinds import EACH_KIND_WITHOUT_A_MODULE

FEATURES = 6


def spec_of(**content):
    inputs = {"text": {"kind": "text", "tokenizer": "t.json"}}
    return ModelSpec.parse({"name": "m", "version": "1", "inputs": inputs, "heads": {"h": content}}).heads["h"]


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("content", "kind", "width"),
    [
        ({"kind": "classification", "labels": ["a", "b", "c"]}, Logits, 3),
        ({"kind": "multilabel", "labels": ["a"]}, Logits, 1),
        ({"kind": "regression"}, Regression, 1),
        ({"kind": "regression", "dim": 4}, Regression, 4),
        ({"kind": "embedding", "dim": 5}, Embedding, 5),
    ],
)
def test_each_kind_gets_its_module_and_width(content, kind, width):
    head = build_head(spec_of(**content), FEATURES)
    assert type(head) is kind
    assert head(noise(2, FEATURES)).shape == (2, width)


@EACH_KIND_WITHOUT_A_MODULE
def test_a_kind_without_a_module_is_refused(content):
    with pytest.raises(SpecError) as caught:
        build_head(spec_of(**content), FEATURES)
    assert str(caught.value) == (
        f"no head module for kind {content['kind']!r} (there are: classification, multilabel, regression, embedding)"
    )


def test_logits_are_not_normalised():
    head, x = Logits(FEATURES, 3), noise(4, FEATURES)
    torch.testing.assert_close(head(x), x @ head.linear.weight.T + head.linear.bias)


@pytest.mark.parametrize("hidden", [0, 8])
def test_regression_applies_scale_and_location_to_what_its_layers_give(hidden):
    head, x = Regression(FEATURES, dim=2, location=100.0, scale=4.0, hidden=hidden), noise(3, FEATURES)
    torch.testing.assert_close(head(x), head.layers(x) * 4.0 + 100.0)
    assert len([p for p in head.parameters() if p.ndim == 2]) == (2 if hidden else 1)


def test_an_untouched_regression_neither_scales_nor_moves():
    head, x = Regression(FEATURES), noise(3, FEATURES)
    torch.testing.assert_close(head(x), head.layers(x))


def test_location_and_scale_travel_with_the_weights_but_are_not_trained():
    trained = Regression(FEATURES, location=8.4, scale=2.5)
    state = trained.state_dict()
    assert (state["location"].item(), state["scale"].item()) == (pytest.approx(8.4), 2.5)
    assert {"location", "scale"}.isdisjoint(name for name, _ in trained.named_parameters())
    fresh, x = Regression(FEATURES), noise(3, FEATURES)
    fresh.load_state_dict(state)
    assert torch.equal(fresh(x), trained(x))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_not_above_0_is_refused(scale):
    with pytest.raises(ValueError, match="scale") as caught:
        Regression(FEATURES, scale=scale)
    assert str(caught.value) == f"scale must be above 0, got {scale}: give the standard deviation of the targets"


def test_a_normalised_embedding_has_length_1_and_keeps_its_direction():
    head, x = Embedding(FEATURES, 5, normalize=True), 100 * noise(4, FEATURES)
    vectors, plain = head(x), head.linear(x)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(vectors * plain.norm(dim=1, keepdim=True), plain)


def test_an_embedding_keeps_its_length_where_the_spec_does_not_normalise():
    head, x = build_head(spec_of(kind="embedding", dim=5), FEATURES), 100 * noise(4, FEATURES)
    assert torch.equal(head(x), head.linear(x))
    assert (head(x).norm(dim=1) > 2).all()


def test_the_spec_decides_about_normalising():
    head = build_head(spec_of(kind="embedding", dim=5, normalize=True), FEATURES)
    torch.testing.assert_close(head(noise(4, FEATURES)).norm(dim=1), torch.ones(4))
