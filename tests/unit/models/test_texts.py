import numpy as np
import pytest

from polyhead.models.data import Batches, Rows
from polyhead.models.spec import ModelSpec, SpecError
from polyhead.models.texts import encode, open_tokenizers
from tests.unit.models.wordpieces import write_tokenizer


def spec(inputs=("text",), **options):
    return ModelSpec.parse(
        {
            "name": "toy",
            "version": "1",
            "inputs": {
                "x": {"kind": "tensor", "shape": [2]},
                **{n: {"kind": "text", "tokenizer": f"{n}.json", "max_length": 8, **options} for n in inputs},
            },
            "heads": {
                "slots": {"kind": "tokens", "labels": ["O", "B-room", "I-room"], "input": inputs[-1]},
                "size": {"kind": "regression"},
            },
        }
    )


TEXTS = np.array(["turn on the lamp", "KITCHEN light", "my bath room", ""], dtype=object)
SPANS = np.array([(), ((0, 7, "room"),), ((3, 12, "room"),), None], dtype=object)
X = np.arange(8, dtype=np.float32).reshape(4, 2)


@pytest.fixture
def path(tmp_path):
    return write_tokenizer(tmp_path)


@pytest.fixture
def encoded(path):
    model = spec()
    rows = Rows({"text": TEXTS, "x": X}, {"slots": SPANS, "size": X[:, :1]})
    return encode(rows, model, open_tokenizers(model, {"text": path}))


def test_texts_become_ids_and_masks_in_the_order_that_the_network_takes(encoded):
    assert list(encoded.inputs) == ["x", "input_ids", "attention_mask"]
    ids, mask = encoded.inputs["input_ids"], encoded.inputs["attention_mask"]
    assert (ids.dtype, mask.dtype, ids.shape) == (np.int64, np.int64, mask.shape)
    lengths = encoded.lengths["input_ids"]
    assert lengths.tolist()[::3] == [6, 2]  # [CLS] turn on the lamp [SEP]; [CLS] [SEP]
    assert ids.shape == (4, lengths.max())
    for row, length in enumerate(lengths):
        assert mask[row].tolist() == [1] * length + [0] * (ids.shape[1] - length)
        assert (ids[row, length:] == 0).all()
    assert np.array_equal(encoded.inputs["x"], X)


def test_a_words_first_token_has_its_label_and_nothing_else_has_one(encoded):
    slots, lengths = encoded.targets["slots"], encoded.lengths["slots"]
    assert slots[0].tolist() == [-1, 0, 0, 0, 0, -1, *[-1] * (slots.shape[1] - 6)]
    assert slots[1].tolist()[:4] == [-1, 1, 0, -1]  # the casing is not the spans'
    inside = [label for label in slots[2].tolist() if label >= 0]
    assert inside == [0, 1, 2]  # "bath" falls into pieces, of which the first is labelled
    assert lengths[2] > 5
    assert (slots[3] == -1).all()
    assert np.array_equal(encoded.targets["size"], X[:, :1])


def test_batches_of_encoded_rows_are_cut_to_their_longest_text(encoded):
    inputs, targets = next(iter(Batches(encoded.take(np.array([1, 3])), 2)))
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == targets["slots"].shape == (2, 4)


def test_several_texts_have_arrays_by_their_names_and_tokens_belong_to_one(path):
    model = spec(("question", "answer"))
    rows = Rows({"question": TEXTS, "answer": TEXTS[[1, 1, 1, 1]], "x": X}, {"slots": SPANS[[1, 1, 1, 1]]})
    encoded = encode(rows, model, open_tokenizers(model, {"question": path, "answer": path}))
    assert list(encoded.inputs) == [
        "x",
        *(f"{text}_{array}" for text in ("question", "answer") for array in ("input_ids", "attention_mask")),
    ]
    assert encoded.targets["slots"].shape == encoded.inputs["answer_input_ids"].shape == (4, 4)
    assert encoded.inputs["question_input_ids"].shape[1] > 4


def test_rows_without_texts_pass_through():
    model = ModelSpec.parse(
        {
            "name": "toy",
            "version": "1",
            "inputs": {"x": {"kind": "tensor", "shape": [2]}},
            "heads": {"size": {"kind": "regression"}},
        }
    )
    rows = Rows({"x": X}, {"size": X[:, :1]})
    encoded = encode(rows, model, open_tokenizers(model, {}))
    assert encoded.inputs["x"] is X
    assert encoded.lengths == {}


def test_a_text_that_is_too_long_names_its_input(path):
    model = spec()
    with pytest.raises(SpecError, match=r"^input 'text', row 1: the text has 22 tokens, the model takes 8: shorten it"):
        encode(
            Rows({"text": np.array(["on", "on " * 20], object), "x": X[:2]}, {}),
            model,
            open_tokenizers(model, {"text": path}),
        )
    cutting = spec(truncate=True)
    cut = encode(
        Rows({"text": np.array(["on " * 20], object), "x": X[:1]}, {}),
        cutting,
        open_tokenizers(cutting, {"text": path}),
    )
    assert cut.inputs["input_ids"].shape == (1, 8)


def test_an_input_that_is_not_there_is_named(path):
    model = spec()
    with pytest.raises(SpecError, match=r"^the data has no input 'x' \(it has text\)$"):
        encode(Rows({"text": TEXTS}, {}), model, open_tokenizers(model, {"text": path}))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ((), r"tokenizers are given for no input, the text inputs are \['text'\]"),
        (("text", "x"), r"tokenizers are given for \['text', 'x'\], the text inputs are \['text'\]"),
    ],
)
def test_each_text_input_needs_one_tokenizer(path, files, says):
    with pytest.raises(SpecError, match=says):
        open_tokenizers(spec(), dict.fromkeys(files, path))


@pytest.mark.parametrize("name", ["/tokenizer.json", "../tokenizer.json", "a/../../b.json"])
def test_a_tokenizer_stays_inside_of_the_run(path, name):
    with pytest.raises(SpecError, match="leads out of the run: give a relative path"):
        open_tokenizers(spec(tokenizer=name), {"text": path})


def test_two_inputs_of_one_file_must_have_the_same_tokenizer(path, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(path.read_text() + "\n")
    model = spec(("a", "b"), tokenizer="tokenizer.json")
    with pytest.raises(
        SpecError, match=r"^input 'b': 'tokenizer.json' is another input's tokenizer too: give it its own name$"
    ):
        open_tokenizers(model, {"a": path, "b": other})
    assert set(open_tokenizers(model, {"a": path, "b": path})) == {"a", "b"}
