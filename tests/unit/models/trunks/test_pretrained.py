from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from polyhead.models.trunks.pretrained import PretrainedError, from_module, masked_mean

IDS = torch.arange(14).reshape(2, 7)
MASK = torch.tensor([[1] * 7, [1] * 3 + [0] * 4])
TEXT = {"input_ids": IDS, "attention_mask": MASK}


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


IMAGES = noise(2, 3, 8, 8)


@pytest.fixture
def bert():
    torch.manual_seed(0)
    return BertModel(
        BertConfig(
            vocab_size=50,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=40,
        )
    ).eval()


class Picky(nn.Module):
    """A classifier that no exporter can follow, and that tells whether it ran."""

    ran = 0

    def forward(self, x):
        self.ran += 1
        return x[x.sum(dim=1) > 0] if x.sum().item() > 0 else x


@pytest.fixture
def cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        Picky(),
    ).eval()


# What are the features


def test_the_output_of_a_module_is_its_features(cnn):
    trunk = from_module(cnn[:5], example=IMAGES)
    assert trunk.out_features == 4
    assert torch.equal(trunk(IMAGES), cnn[:5](IMAGES))


def test_a_submodule_names_its_output_and_nothing_runs_after_it(cnn):
    for feature in ("3", "4"):  # [batch, 4, 1, 1] and [batch, 4]
        trunk = from_module(cnn, feature, example=IMAGES)
        assert trunk.out_features == 4
        assert torch.equal(trunk(IMAGES), cnn[:5](IMAGES))
    assert cnn[5].ran == 0


def test_a_feature_is_not_changed_by_what_would_follow_in_place(cnn):
    trunk = from_module(cnn, "1", "map", example=IMAGES)
    assert torch.equal(trunk(IMAGES)["map"], cnn[:2](IMAGES))


def test_the_module_of_the_user_stays_as_it_was(cnn, bert):
    def hooks():
        return sum(len(m._forward_hooks) for model in (cnn, bert) for m in model.modules())

    from_module(cnn, "4", example=IMAGES)(IMAGES)
    trunk = from_module(bert, "encoder.layer.0", "mean", example=TEXT)
    with pytest.raises(IndexError):
        trunk(input_ids=IDS + 100, attention_mask=MASK)
    assert hooks() == 0
    assert cnn(IMAGES).dim() == 2
    assert cnn[5].ran == 1


@pytest.mark.parametrize("pool", ["mean", "cls"])
@pytest.mark.parametrize("feature", ["last_hidden_state", "encoder.layer.1", "encoder.last_hidden_state"])
def test_the_tokens_of_transformers_are_pooled_over_the_valid_ones(bert, feature, pool):
    trunk = from_module(bert, feature, pool, example=TEXT)
    output, tokens = trunk(**TEXT), bert(**TEXT).last_hidden_state
    assert trunk.out_features == 32
    torch.testing.assert_close(output["tokens"], tokens)
    pooled = torch.stack([tokens[0].mean(dim=0), tokens[1, :3].mean(dim=0)]) if pool == "mean" else tokens[:, 0]
    torch.testing.assert_close(output["pooled"], pooled)
    by_position = trunk(IDS, MASK)
    assert all(torch.equal(by_position[name], output[name]) for name in output)


@pytest.mark.parametrize("feature", ["pooler", "pooler_output"])
def test_a_pooled_output_needs_no_pool(bert, feature):
    trunk = from_module(bert, feature, example=TEXT)
    torch.testing.assert_close(trunk(**TEXT), bert(**TEXT).pooler_output)


def test_a_map_is_pooled_over_its_pixels(cnn):
    trunk = from_module(cnn, "2", "map", example=IMAGES)
    output = trunk(IMAGES)
    assert output["map"].shape == (2, trunk.out_features, 8, 8)
    torch.testing.assert_close(output["pooled"], output["map"].mean(dim=(2, 3)))


Pair = namedtuple("Pair", ["score", "hidden"])


@dataclass
class Answer:
    score: torch.Tensor
    hidden: torch.Tensor


class Returns(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, x):
        return self.form(x[:, :1], x)


@pytest.mark.parametrize(
    ("form", "feature"),
    [
        (lambda score, hidden: {"a": {"hidden": hidden}}, "a.hidden"),
        (lambda score, hidden: (score, [hidden]), "1.0"),
        (Pair, "hidden"),
        (Pair, "1"),
        (Answer, "hidden"),
        (lambda score, hidden: {7: hidden}, "7"),
    ],
)
def test_a_path_goes_through_keys_indices_and_attributes(form, feature):
    x = noise(2, 5)
    trunk = from_module(Returns(form), feature, example=x)
    assert torch.equal(trunk(x), x)
    assert trunk.out_features == 5


# The dry run


def test_the_dry_run_changes_neither_statistics_nor_modes(cnn):
    cnn.train()
    cnn[1].eval()
    modes = [m.training for m in cnn.modules()]
    from_module(cnn.requires_grad_(False), "4", example=IMAGES)
    assert [m.training for m in cnn.modules()] == modes
    assert cnn[1].num_batches_tracked == 0
    assert cnn[1].running_mean.abs().sum() == 0


@pytest.mark.parametrize("example", [(IDS, MASK), [IDS, MASK], TEXT])
def test_an_example_is_given_by_position_or_by_name(bert, example):
    assert from_module(bert, "last_hidden_state", "mean", example=example).out_features == 32


def test_without_an_example_the_width_is_told(cnn):
    assert from_module(cnn, "4", out_features=4).out_features == 4
    assert from_module(cnn, "4", out_features=4, example=IMAGES).out_features == 4


# Learning


def test_gradients_reach_what_is_before_the_feature_and_nothing_after_it(bert):
    trunk = from_module(bert, "encoder.layer.0", "mean", example=TEXT)
    trunk(**TEXT)["pooled"].square().sum().backward()
    reached = {name for name, p in trunk.named_parameters() if p.grad is not None}
    every = {name for name, _ in trunk.named_parameters()}
    assert {name for name in every if ".embeddings." in name or "encoder.layer.0." in name} == reached
    assert any("pooler" in name for name in every - reached)


def test_blocks_are_the_children_in_their_order(bert, cnn):
    assert from_module(bert, "last_hidden_state", "mean", out_features=32).blocks() == list(bert.children())
    assert from_module(cnn, "4", out_features=4).blocks() == list(cnn)
    lone = nn.Linear(3, 4)
    assert from_module(lone, out_features=4).blocks() == [lone]


def test_parameters_of_the_modules_own_are_the_lowest_block():
    module = nn.Sequential(nn.Linear(3, 4))
    module.register_parameter("shift", nn.Parameter(torch.zeros(3)))
    own, linear = from_module(module, out_features=4).blocks()
    assert list(own.parameters()) == [module.shift]
    assert linear is module[0]
    own.requires_grad_(False)
    assert not module.shift.requires_grad


# Graphs


class Leaves(nn.Module):
    """The graph's door: tensors in by position, a tuple out."""

    def __init__(self, trunk):
        super().__init__()
        self.trunk = trunk

    def forward(self, *inputs):
        output = self.trunk(*inputs)
        return tuple(output.values()) if isinstance(output, dict) else (output,)


def assert_exports(trunk, example, others, shapes):
    module = Leaves(trunk).eval()
    program = torch.export.export(module, example, dynamic_shapes=(shapes,)).module()
    traced = torch.jit.trace(module, example, check_trace=False)
    for rows in others:
        with torch.inference_mode():
            for eager, ours, theirs in zip(module(*rows), program(*rows), traced(*rows), strict=True):
                torch.testing.assert_close(ours, eager)
                torch.testing.assert_close(theirs, eager)


BATCH = torch.export.Dim("batch", min=1)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize(("feature", "pool"), [("4", None), ("3", None), ("2", "map")])
def test_a_network_exports_up_to_its_feature_whatever_follows(cnn, feature, pool):
    with pytest.raises(Exception, match=r"data-dependent|Could not guard"):
        torch.export.export(cnn, (IMAGES,))
    cnn[5].ran = 0
    trunk = from_module(cnn, feature, pool, example=IMAGES)
    assert_exports(trunk, (IMAGES,), [(noise(1, 3, 8, 8),), (noise(5, 3, 8, 8),)], ({0: BATCH},))
    assert cnn[5].ran == 0


# What transformers itself asks of tensors, and its deprecations, are not ours.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("feature", ["last_hidden_state", "encoder.layer.0"])
def test_a_model_of_transformers_exports_at_any_batch_and_length(bert, feature):
    trunk = from_module(bert, feature, "mean", example=TEXT)
    free = {0: BATCH, 1: torch.export.Dim("sequence", min=1, max=40)}
    others = [(IDS[:1], MASK[:1]), (IDS[:, :4].repeat(3, 1), MASK[:, :4].repeat(3, 1))]
    assert_exports(trunk, (IDS, MASK), others, (free, free))


# Refusals


@pytest.mark.parametrize(
    ("feature", "pool", "message"),
    [
        (
            "hidden",
            None,
            "feature 'hidden' names nothing: there is no 'hidden' in the output "
            "(there are: last_hidden_state, pooler_output) and no such submodule "
            "(there are: embeddings, encoder, pooler)",
        ),
        (
            "encoder.layers",
            "mean",
            "feature 'encoder.layers' names nothing: there is no 'layers' in the output (there are: last_hidden_state) "
            "and no such submodule (there are: layer)",
        ),
        (
            "pooler.T",
            None,
            "feature 'pooler.T' names nothing: there is no 'T' in the output (there are none) "
            "and no such submodule (there are: dense, activation)",
        ),
        (
            None,
            "mean",
            "the module's output is a BaseModelOutputWithPoolingAndCrossAttentions, not a tensor: "
            "name a part of it (there are: last_hidden_state, pooler_output)",
        ),
        (
            "last_hidden_state",
            None,
            "feature 'last_hidden_state' has shape [2, 7, 32], wanted [batch, features]: give pool='mean' or 'cls' for "
            "[batch, sequence, features], pool='map' for [batch, channels, height, width]",
        ),
        (
            "last_hidden_state",
            "map",
            "feature 'last_hidden_state' has shape [2, 7, 32], pool='map' wants [batch, channels, height, width]: "
            "give another pool",
        ),
        (
            "encoder.layer",
            "mean",
            "feature 'encoder.layer' is never called by the module's forward: name a submodule that is",
        ),
        ("last_hidden_state", "max", "pool 'max' is not known: give one of mean, cls, map, or None"),
    ],
)
def test_a_feature_that_cannot_be_is_told_what_there_is(bert, feature, pool, message):
    with pytest.raises(PretrainedError) as caught:
        from_module(bert, feature, pool, example=TEXT)
    assert str(caught.value) == message


def test_a_map_without_a_pool_is_refused(cnn):
    with pytest.raises(PretrainedError, match=r"^feature '2' has shape \[2, 4, 8, 8\], wanted \[batch, features\]"):
        from_module(cnn, "2", example=IMAGES)


def test_many_names_are_cut_short():
    module = nn.Sequential(*(nn.Linear(4, 4) for _ in range(20)))
    with pytest.raises(PretrainedError, match=r"submodule \(there are: 0, 1, 2, .*, 11 and 8 more\)$"):
        from_module(module, "head", example=noise(2, 4))


def test_a_name_that_is_only_found_out_later_is_refused_then(bert):
    trunk = from_module(bert, "hidden", out_features=32)
    with pytest.raises(PretrainedError, match=r"^feature 'hidden' names nothing"):
        trunk(**TEXT)


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_pooling_tokens_without_a_mask_is_refused(bert, pool):
    with pytest.raises(
        PretrainedError, match=rf"is pooled by '{pool}' over the valid .*: give the input attention_mask$"
    ):
        from_module(bert, "last_hidden_state", pool, example={"input_ids": IDS})


def test_a_width_that_is_not_known_or_wrong_is_refused(cnn):
    with pytest.raises(PretrainedError, match=r"^the width .* is not known: give out_features=, or example= inputs$"):
        from_module(cnn, "4")
    with pytest.raises(PretrainedError, match=r"^the example gives 4 features, got out_features=5: leave it out$"):
        from_module(cnn, "4", out_features=5, example=IMAGES)


# The mean over valid tokens


def test_the_masked_mean_passes_over_what_pads_hold():
    tokens = noise(3, 4, 2)
    tokens[0, 2:] = float("nan")
    tokens[1, 1:] = float("inf")
    mean = masked_mean(tokens, torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]))
    torch.testing.assert_close(mean, torch.stack([tokens[0, :2].mean(dim=0), tokens[1, 0], torch.zeros(2)]))
    assert masked_mean(tokens.half(), torch.ones(3, 4)).dtype == torch.float16
