import warnings

import pytest
import torch
from torch import nn

from polyhead.models.heads import Attentive, Embedding, Logits, OneShot, Regression, TokenLogits, build_head
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.spec import ModelSpec, SpecError

FEATURES = 6


def spec_of(**content):
    inputs = {"text": {"kind": "text", "tokenizer": "t.json"}}
    return ModelSpec.parse({"name": "m", "version": "1", "inputs": inputs, "heads": {"h": content}}).heads["h"]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# What is built for which kind


@pytest.mark.parametrize(
    ("content", "kind", "width"),
    [
        ({"kind": "classification", "labels": ["a", "b", "c"]}, Logits, 3),
        ({"kind": "multilabel", "labels": ["a"]}, Logits, 1),
        ({"kind": "regression"}, Regression, 1),
        ({"kind": "regression", "dim": 4}, Regression, 4),
        ({"kind": "embedding", "dim": 5}, Embedding, 5),
        ({"kind": "oneshot", "dim": 7}, OneShot, 7),
    ],
)
def test_each_kind_gets_its_module_and_width(content, kind, width):
    head = build_head(spec_of(**content), FEATURES)
    assert type(head) is kind
    assert head.feature == "pooled"
    assert head(noise(2, FEATURES)).shape == (2, width)


def test_a_tokens_head_takes_the_tokens():
    head = build_head(spec_of(kind="tokens", labels=["O", "B-a", "I-a"]), FEATURES)
    assert (type(head), head.feature) == (TokenLogits, "tokens")
    assert head(noise(2, 5, FEATURES)).shape == (2, 5, 3)


def test_segmentation_says_what_builds_it():
    with pytest.raises(SpecError) as caught:
        build_head(spec_of(kind="segmentation", labels=["a", "b"]), FEATURES)
    assert str(caught.value) == (
        "a head of kind segmentation is built on maps, not on 6 features: make it with "
        "polyhead.models.decoders.Segmentation(channels, labels=2, size=(height, width))"
    )


# Logits


def test_logits_are_not_normalised():
    head, x = Logits(FEATURES, 3), noise(4, FEATURES)
    torch.testing.assert_close(head(x), x @ head.linear.weight.T + head.linear.bias)


@pytest.mark.parametrize("kind", [Logits, TokenLogits])
def test_weights_of_a_linear_head_keep_their_names(kind):
    assert list(kind(FEATURES, 3).state_dict()) == ["linear.weight", "linear.bias"]


def test_a_hidden_layer_bends():
    head, x = Logits(FEATURES, 3, hidden=8), noise(4, FEATURES)
    first, _ = head.hidden
    torch.testing.assert_close(head(x), head.linear((x @ first.weight.T + first.bias).clamp(min=0)))
    assert head.linear.in_features == 8


def test_dropout_is_for_training_alone():
    head, x = Logits(FEATURES, 3, dropout=0.5), noise(64, FEATURES)
    assert not torch.equal(head(x), head(x))
    assert torch.equal(head.eval()(x), head(x))
    torch.testing.assert_close(head(x), head.linear(x))


def test_every_token_is_labelled_on_its_own():
    head, x = TokenLogits(FEATURES, 3, hidden=4), noise(2, 5, FEATURES)
    torch.testing.assert_close(head(x)[1, 3], head(x[1:, 3:4])[0, 0])


# Regression


@pytest.mark.parametrize("hidden", [0, 8])
def test_regression_applies_scale_and_location_to_what_its_layers_give(hidden):
    head, x = Regression(FEATURES, dim=2, location=100.0, scale=4.0, hidden=hidden), noise(3, FEATURES)
    torch.testing.assert_close(head(x), head.layers(x) * 4.0 + 100.0)
    assert len([p for p in head.parameters() if p.ndim == 2]) == (2 if hidden else 1)


def test_each_value_may_have_its_own_scale_and_location():
    head, x = Regression(FEATURES, dim=2, location=[20.0, -3.0], scale=(0.5, 7.0)), noise(3, FEATURES)
    plain = head.layers(x)
    torch.testing.assert_close(head(x), torch.stack([plain[:, 0] * 0.5 + 20, plain[:, 1] * 7 - 3], dim=1))


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


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), [1.0, 0.0]])
def test_a_scale_that_is_not_above_0_is_refused(scale):
    with pytest.raises(ValueError, match="scale") as caught:
        Regression(FEATURES, dim=2, scale=scale)
    assert str(caught.value) == f"scale must be above 0, got {scale}: give the standard deviation of the targets"


@pytest.mark.parametrize("name", ["location", "scale"])
def test_scales_of_another_number_of_values_are_refused(name):
    with pytest.raises(ValueError, match=name) as caught:
        Regression(FEATURES, dim=3, **{name: [1.0, 2.0]})
    assert str(caught.value) == f"{name} has 2 values for a regression of 3: give one, or 3"


# Vectors


@pytest.mark.parametrize("kind", [Embedding, OneShot])
def test_a_normalised_vector_has_length_1_and_keeps_its_direction(kind):
    head, x = kind(FEATURES, 5, normalize=True), 100 * noise(4, FEATURES)
    plain = (head.linear if kind is Embedding else head.layers)(x)
    vectors = head(x)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(vectors * plain.norm(dim=1, keepdim=True), plain)


def test_an_embedding_keeps_its_length_where_the_spec_does_not_normalise():
    head, x = build_head(spec_of(kind="embedding", dim=5), FEATURES), 100 * noise(4, FEATURES)
    assert torch.equal(head(x), head.linear(x))
    assert (head(x).norm(dim=1) > 2).all()


@pytest.mark.parametrize("kind", ["embedding", "oneshot"])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_spec_decides_about_normalising(kind, normalize):
    head = build_head(spec_of(kind=kind, dim=5, normalize=normalize), FEATURES)
    unit = (head(noise(4, FEATURES)).norm(dim=1) - 1).abs() < 1e-5
    assert unit.all() if normalize else not unit.any()


@pytest.mark.parametrize("normalize", [True, False])
def test_without_a_projection_the_features_are_the_vector(normalize):
    head, x = Embedding(FEATURES, FEATURES, normalize, projection=False), noise(4, FEATURES)
    torch.testing.assert_close(head(x), x / x.norm(dim=1, keepdim=True) if normalize else x)
    assert head.state_dict() == {}


def test_without_a_projection_the_widths_must_agree():
    with pytest.raises(ValueError, match="dim") as caught:
        Embedding(FEATURES, 5, normalize=True, projection=False)
    assert str(caught.value) == "an embedding of dim 5 from 6 features: project them, or set dim: 6"


def test_a_oneshot_head_may_have_a_hidden_layer():
    head, x = OneShot(FEATURES, 5, normalize=False, hidden=8), noise(4, FEATURES)
    torch.testing.assert_close(head(x), head.layers[2](head.layers[0](x).clamp(min=0)))


# Pooling by attention

LENGTHS = torch.tensor([5, 1, 3])
MASK = (torch.arange(5) < LENGTHS[:, None]).long()


def attentive(head=None, seed=1):
    module = Attentive(FEATURES, head or nn.Identity()).eval()
    with torch.no_grad():
        module.query.copy_(noise(FEATURES, seed=seed))
    return module


def test_attention_begins_as_the_mean_of_the_valid_tokens():
    tokens = noise(3, 5, FEATURES)
    expected = torch.stack([row[:length].mean(dim=0) for row, length in zip(tokens, LENGTHS, strict=True)])
    torch.testing.assert_close(Attentive(FEATURES, nn.Identity())(tokens, MASK), expected)


def test_attention_weighs_the_valid_tokens_by_the_softmax_of_their_scores():
    module, tokens = attentive(), noise(3, 5, FEATURES)
    rows = [row[:length] for row, length in zip(tokens, LENGTHS, strict=True)]
    expected = torch.stack([(row @ module.query).softmax(dim=0) @ row for row in rows])
    torch.testing.assert_close(module(tokens, MASK), expected)


def test_padding_changes_nothing_neither_its_length_nor_its_content():
    module, tokens = attentive(Regression(FEATURES)), noise(3, 5, FEATURES)
    longer = torch.cat([tokens, 100 * noise(3, 4, FEATURES, seed=3)], dim=1)
    mask = torch.cat([MASK, torch.zeros(3, 4, dtype=torch.int64)], dim=1)
    torch.testing.assert_close(module(longer, mask), module(tokens, MASK))
    torch.testing.assert_close(module(tokens[2:, :3], MASK[2:, :3]), module(tokens, MASK)[2:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_row_of_no_valid_token_pools_to_zeros_and_gradients_stay_finite(dtype):
    module, tokens = attentive().to(dtype), noise(3, 5, FEATURES).to(dtype).requires_grad_()
    mask = MASK.clone()
    mask[1] = 0
    pooled = module(tokens, mask)
    assert pooled[1].tolist() == [0.0] * FEATURES
    pooled.sum().backward()
    assert tokens.grad.isfinite().all()
    assert module.query.grad.isfinite().all()
    assert tokens.grad[mask == 0].abs().max() == 0 < tokens.grad[0].abs().max()


def test_attention_learns_to_find_the_token_that_matters():
    """One token of each row bears a mark and a value: a plain mean cannot tell the value from the others' noise."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(512, 8, FEATURES, generator=generator)
    tokens[..., 0] = 0
    place, value = torch.randint(8, (512,), generator=generator), torch.randn(512, 1, generator=generator)
    tokens[torch.arange(512), place, 0] = 3.0
    tokens[torch.arange(512), place, 1] = value[:, 0]
    mask = torch.ones(512, 8, dtype=torch.int64)
    torch.manual_seed(0)
    module = Attentive(FEATURES, Regression(FEATURES))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss = (module(tokens[:384], mask[:384]) - value[:384]).square().mean()
        loss.backward()
        optimizer.step()
    assert (module(tokens[384:], mask[384:]) - value[384:]).abs().mean() < 0.1


def test_the_network_feeds_it_tokens_and_mask():
    class Trunk(nn.Module):
        def forward(self, tokens, mask):
            return {"pooled": tokens.mean(dim=1), "tokens": tokens, "mask": mask}

    head = attentive(Logits(FEATURES, 3))
    network = MultiTaskNetwork(Trunk(), {"intent": head, "slots": TokenLogits(FEATURES, 2)})
    tokens = noise(3, 5, FEATURES)
    output = network(tokens=tokens, mask=MASK)
    assert torch.equal(output["intent"], head(tokens, MASK))
    assert output["slots"].shape == (3, 5, 2)


def test_only_a_head_of_pooled_features_can_be_fed():
    with pytest.raises(ValueError, match="pooled") as caught:
        Attentive(FEATURES, TokenLogits(FEATURES, 3))
    assert str(caught.value) == "TokenLogits takes feature 'tokens': give a head of pooled features"


def test_a_traced_and_an_exported_graph_take_other_batches_and_lengths():
    module = attentive(Regression(FEATURES, 2, [1.0, 2.0], [3.0, 4.0], hidden=4))
    example = (noise(3, 5, FEATURES), MASK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is deprecated in favour of torch.export
        traced = torch.jit.trace(module, example)
    dims = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("sequence", min=1)}
    program = torch.export.export(module, example, dynamic_shapes=(dims, dims)).module()
    for batch, sequence in ((1, 1), (1, 9), (4, 17)):
        tokens = noise(batch, sequence, FEATURES, seed=batch + sequence)
        mask = (torch.arange(sequence) < torch.arange(batch)[:, None] * 3).long()  # the first row has none
        torch.testing.assert_close(traced(tokens, mask), module(tokens, mask))
        torch.testing.assert_close(program(tokens, mask), module(tokens, mask))
