import pytest
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertModel

from polyhead.models.trunks.text import TextConfig, TextTrunk, pretrained

SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}


def batch(lengths, longest=None, vocabulary=99, seed=0):
    """Token ids and mask of rows of these lengths; pads hold ids of words."""
    longest = longest or max(lengths)
    ids = torch.randint(0, vocabulary, (len(lengths), longest), generator=torch.Generator().manual_seed(seed))
    return ids, (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()


def scrambled(module):
    """Weights far from the initial ones, so that no bias, scale or segment is 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def saved(folder, **config):
    """A random model as transformers writes it, and the trunk that reads it."""
    model = scrambled(BertModel(BertConfig(**SIZES, **config)))
    model.save_pretrained(folder)
    return model, TextTrunk.from_directory(folder)


def worst(ours, theirs, mask):
    return ((ours - theirs).abs() * mask.unsqueeze(-1)).max().item()


@pytest.fixture
def trunk():
    torch.manual_seed(0)
    return scrambled(TextTrunk(TextConfig(**SIZES)))


@pytest.fixture(scope="module")
def minilm():
    return TextTrunk.from_directory(pretrained())


# Equal to transformers


@pytest.mark.parametrize(
    "config",
    [{}, {"hidden_act": "relu"}, {"hidden_act": "gelu_new"}, {"layer_norm_eps": 0.1}, {"type_vocab_size": 1}],
    ids=str,
)
def test_tokens_are_those_of_transformers(tmp_path, config):
    model, trunk = saved(tmp_path, **config)
    for lengths in ([1], [7, 3, 5], [40, 1], [12] * 6):
        ids, mask = batch(lengths)
        with torch.inference_mode():
            theirs = model(input_ids=ids, attention_mask=mask).last_hidden_state
            output = trunk(ids, mask)
        assert worst(output["tokens"], theirs, mask) < 1e-5
        means = torch.stack([row[:length].mean(dim=0) for row, length in zip(theirs, lengths, strict=True)])
        torch.testing.assert_close(output["pooled"], means, atol=1e-5, rtol=0)


def test_gradients_are_those_of_transformers(tmp_path):
    model, trunk = saved(tmp_path)
    ids, mask = batch([7, 3, 5])
    direction = torch.randn(3, 7, 32, generator=torch.Generator().manual_seed(1)) * mask.unsqueeze(-1)
    (trunk(ids, mask)["tokens"] * direction).sum().backward()
    (model(input_ids=ids, attention_mask=mask).last_hidden_state * direction).sum().backward()
    theirs = dict(model.named_parameters())
    for name, parameter in trunk.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_every_parameter_gets_a_gradient_from_the_pooled_features(trunk, pooling):
    trunk.pooling = pooling
    trunk(*batch([7, 3, 5]))["pooled"].square().sum().backward()
    assert [name for name, p in trunk.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_names_and_shapes_are_those_of_transformers_without_the_pooler():
    with torch.device("meta"):
        theirs = BertModel(BertConfig(**SIZES), add_pooling_layer=False).state_dict()
        ours = TextTrunk(TextConfig(**SIZES)).state_dict()
    assert {name: t.shape for name, t in ours.items()} == {name: t.shape for name, t in theirs.items()}
    assert {"embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight"} < set(ours)


# MiniLM


def test_minilm_is_equal_to_transformers(minilm):
    model = BertModel.from_pretrained(pretrained()).eval()
    ids, mask = batch([33, 1, 8, 20], vocabulary=30_522)
    with torch.inference_mode():
        theirs = model(input_ids=ids, attention_mask=mask).last_hidden_state
        assert worst(minilm(ids, mask)["tokens"], theirs, mask) < 1e-5


def test_minilm_gives_the_published_similarities(minilm):
    sentences = [
        "That is a happy person",
        "That is a happy dog",
        "That is a very happy person",
        "Today is a sunny day",
    ]
    tokenizer = Tokenizer.from_file(str(pretrained() / "tokenizer.json"))
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(sentences)
    ids, mask = (torch.tensor([getattr(row, key) for row in encoded]) for key in ("ids", "attention_mask"))
    with torch.inference_mode():
        vectors = functional.normalize(minilm(ids, mask)["pooled"], dim=1)
    assert (vectors[1:] @ vectors[0]).tolist() == pytest.approx([0.695, 0.943, 0.257], abs=0.01)


def test_minilm_has_the_sizes_it_is_known_for(minilm):
    assert minilm.out_features == 384
    # 22 713 216 with the pooler of 384 * 384 + 384.
    assert sum(p.numel() for p in minilm.parameters()) == 22_713_216 - 147_840
    assert len(minilm.blocks()) == 1 + 6
    assert not minilm.training


# Pads


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_neither_the_length_of_the_padding_nor_what_it_holds_changes_a_row(trunk, pooling):
    trunk.pooling = pooling
    ids, mask = batch([7, 3, 5])
    with torch.inference_mode():
        alone = trunk(ids, mask)
        for longest, seed in ((7, 5), (12, 1), (40, 2)):
            more, longer = batch([7, 3, 5], longest, vocabulary=10**6, seed=seed)  # of no vocabulary
            more[:, :7] = torch.where(mask == 1, ids, more[:, :7])
            padded = trunk(more, longer)
            torch.testing.assert_close(padded["pooled"], alone["pooled"], atol=1e-5, rtol=0)
            assert worst(padded["tokens"][:, :7], alone["tokens"], mask) < 1e-5
        single = trunk(ids[1:2, :3], mask[1:2, :3])
        torch.testing.assert_close(single["pooled"], alone["pooled"][1:2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_row_without_a_valid_token_is_finite_and_leaves_its_neighbour_alone(trunk, dtype):
    trunk = trunk.to(dtype)
    ids, mask = batch([4, 0])
    with torch.inference_mode():
        output, alone = trunk(ids, mask), trunk(ids[:1], mask[:1])
    assert all(value.isfinite().all() and value.dtype == dtype for value in output.values())
    assert (output["pooled"][1] == 0).all()
    torch.testing.assert_close(
        output["pooled"][0], alone["pooled"][0], atol=1e-5 if dtype == torch.float32 else 0.1, rtol=0
    )


def test_pooled_is_the_mean_of_the_valid_tokens_or_the_first(trunk):
    ids, mask = batch([7, 3])
    output = trunk(ids, mask)
    torch.testing.assert_close(output["pooled"][1], output["tokens"][1, :3].mean(dim=0))
    trunk.pooling = "cls"
    output = trunk(ids, mask)
    assert torch.equal(output["pooled"], output["tokens"][:, 0])
    assert {name: tuple(value.shape) for name, value in output.items()} == {"pooled": (2, 32), "tokens": (2, 7, 32)}


def test_the_mask_may_be_of_any_dtype(trunk):
    ids, mask = batch([7, 3])
    for dtype in (torch.bool, torch.int32, torch.float32):
        assert torch.equal(trunk(ids, mask.to(dtype))["pooled"], trunk(ids, mask)["pooled"])


# Behaviour


def test_more_tokens_than_positions_are_refused(trunk):
    trunk(*batch([40]))
    with pytest.raises(
        ValueError, match=r"^a row has 41 tokens, this encoder has positions for 40: truncate the input$"
    ):
        trunk(*batch([41]))


def test_features_are_dropped_in_training_only(trunk):
    rows = batch([7, 3])
    assert torch.equal(trunk(*rows)["pooled"], trunk(*rows)["pooled"])
    trunk.train()
    assert not torch.equal(trunk(*rows)["pooled"], trunk(*rows)["pooled"])


def test_blocks_are_the_embeddings_and_the_layers_from_bottom_to_top(trunk):
    assert trunk.blocks() == [trunk.embeddings, *trunk.encoder["layer"]]
    held = [p for block in trunk.blocks() for p in block.parameters()]
    assert len(held) == len(set(held)) == len(list(trunk.parameters()))


def test_a_new_trunk_starts_as_bert_did():
    torch.manual_seed(0)
    trunk = TextTrunk(TextConfig(**SIZES))
    assert all((module.bias == 0).all() for module in trunk.modules() if isinstance(module, nn.Linear))
    assert trunk.embeddings.word_embeddings.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_an_unknown_pooling_is_told_the_known_ones():
    with pytest.raises(ValueError, match=r"^pooling 'max' is not known \(poolings: mean, cls\)$"):
        TextTrunk(TextConfig(**SIZES), "max")


# Graphs


class Positional(nn.Module):
    """The graph's door: tensors in by position, a tuple out."""

    def __init__(self, trunk):
        super().__init__()
        self.trunk = trunk

    def forward(self, input_ids, attention_mask):
        return tuple(self.trunk(input_ids, attention_mask).values())


def assert_agrees(graph, module):
    for lengths in ([1], [5, 2], [40, 1, 17], [3, 0, 9, 9], [2] * 7):
        rows = batch(lengths)
        with torch.inference_mode():
            for ours, eager in zip(graph(*rows), module(*rows), strict=True):
                torch.testing.assert_close(ours, eager, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_trace_agrees_at_other_batches_and_lengths(trunk, pooling, tmp_path):
    trunk.pooling = pooling
    module = Positional(trunk).eval()
    traced = torch.jit.freeze(torch.jit.trace(module, batch([11, 4, 6]), check_trace=False))
    torch.jit.save(traced, tmp_path / "text.ts")
    assert_agrees(torch.jit.load(tmp_path / "text.ts"), module)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_an_exported_program_agrees_at_other_batches_and_lengths(trunk, pooling):
    trunk.pooling = pooling
    module = Positional(trunk).eval()
    free = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("sequence", min=1, max=40)}
    program = torch.export.export(module, batch([11, 4, 6]), dynamic_shapes=(free, free))
    assert_agrees(program.module(), module)
