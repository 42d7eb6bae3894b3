import copy
import subprocess
import sys

import pytest
import yaml
from pydantic import ValidationError

from polyhead.models.spec import ModelSpec, SpecError

FULL = """
name: smarthome
version: "1.0"
description: What was said at home.
inputs:
  text:   {kind: text, tokenizer: tokenizer.json, max_length: 64}
  photo:  {kind: image, size: [48, 64], channels: bgr, resize: none, mean: [0.1, 0.2, 0.3], std: [0.5]}
  motion: {kind: tensor, dtype: float64, shape: [steps, 6], pad: 0}
heads:
  intent:      {kind: classification, labels: [light_on, light_off, other]}
  alerts:      {kind: multilabel, labels: [smoke, intrusion], threshold: 0.25}
  temperature: {kind: regression, unit: "°C", dim: 2}
  slots:       {kind: tokens, labels: [O, B-room, I-room]}
  sentence:    {kind: embedding, dim: 384, normalize: true}
  region:      {kind: segmentation, labels: [background, road], output: "1.0"}
  person:      {kind: oneshot, dim: 128}
"""


def changed(*path_and_value):
    """The full spec's data with the value at one path replaced; `...` as the value removes the key."""
    *path, value = path_and_value
    data = yaml.safe_load(FULL)
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = copy.deepcopy(value)
    return data


def fault_of(data):
    with pytest.raises(SpecError) as caught:
        ModelSpec.parse(data, source="there.yaml")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("there.yaml: ")
    return message.removeprefix("there.yaml: ")


def written(folder, text):
    path = folder / "spec.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def fault_of_file(path):
    with pytest.raises(SpecError) as caught:
        ModelSpec.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def head(**content):
    return changed("heads", {"a": content})


def only_input(**content):
    return {**head(kind="regression"), "inputs": {"x": content}}


# Reading


def test_every_kind_parses_with_its_values_and_defaults(tmp_path):
    spec = ModelSpec.load(written(tmp_path, FULL))
    assert (spec.name, spec.version, spec.description) == ("smarthome", "1.0", "What was said at home.")
    assert {name: content.model_dump() for name, content in spec.inputs.items()} == {
        "text": {"kind": "text", "tokenizer": "tokenizer.json", "max_length": 64, "truncate": False},
        "photo": {
            "kind": "image",
            "size": (48, 64),
            "channels": "bgr",
            "resize": "none",
            "mean": (0.1, 0.2, 0.3),
            "std": (0.5,),
        },
        "motion": {"kind": "tensor", "dtype": "float64", "shape": ("steps", 6), "lengths": {}, "pad": 0},
    }
    common = {"output": None, "description": ""}
    assert {name: content.model_dump() for name, content in spec.heads.items()} == {
        "intent": {**common, "kind": "classification", "labels": ("light_on", "light_off", "other")},
        "alerts": {**common, "kind": "multilabel", "labels": ("smoke", "intrusion"), "threshold": 0.25},
        "temperature": {**common, "kind": "regression", "unit": "°C", "dim": 2},
        "slots": {**common, "kind": "tokens", "labels": ("O", "B-room", "I-room"), "input": None},
        "sentence": {**common, "kind": "embedding", "dim": 384, "normalize": True},
        "region": {**common, "kind": "segmentation", "labels": ("background", "road"), "output": "1.0"},
        "person": {
            **common,
            "kind": "oneshot",
            "dim": 128,
            "labels": (),
            "normalize": True,
            "scale": 10.0,
            "max_distance": None,
        },
    }


def test_what_is_left_out_has_the_documented_default():
    inputs = {
        "t": {"kind": "text", "tokenizer": "t.json"},
        "i": {"kind": "image", "size": [2, 3]},
        "x": {"kind": "tensor", "shape": [4]},
    }
    heads = {
        "a": {"kind": "multilabel", "labels": ["one"]},
        "b": {"kind": "regression"},
        "c": {"kind": "embedding", "dim": 2},
    }
    spec = ModelSpec.parse({"name": "m", "version": "1", "inputs": inputs, "heads": heads})
    text, image, tensor = spec.inputs.values()
    assert spec.description == ""
    assert text.max_length == 512
    assert (image.channels, image.resize, image.mean, image.std) == ("rgb", "bilinear", (0.0,), (1.0,))
    assert (tensor.dtype, tensor.pad) == ("float32", None)
    assert spec.heads["a"].threshold == 0.5
    assert (spec.heads["b"].unit, spec.heads["b"].dim) == ("", 1)
    assert spec.heads["c"].normalize is False


def test_head_names_are_sorted_whatever_order_they_are_declared_in():
    spec = ModelSpec.parse(yaml.safe_load(FULL))
    assert list(spec.heads) != sorted(spec.heads)
    assert spec.head_names == ("alerts", "intent", "person", "region", "sentence", "slots", "temperature")


@pytest.mark.parametrize(("channels", "depth"), [("gray", 1), ("rgb", 3), ("bgr", 3)])
def test_depth_is_the_number_of_channels(channels, depth):
    spec = ModelSpec.parse(only_input(kind="image", size=[8, 8], channels=channels, mean=[0.5] * depth))
    assert spec.inputs["x"].depth == depth


@pytest.mark.parametrize(("shape", "free"), [(["steps", 6], ("steps",)), ([3, "b", "a"], ("b", "a")), ([3], ())])
def test_free_dimensions_are_the_named_ones(shape, free):
    assert ModelSpec.parse(only_input(kind="tensor", shape=shape)).inputs["x"].free == free


@pytest.mark.parametrize("threshold", [0, 1, 0.25, [0.0, 1.0]])
def test_thresholds_are_one_for_all_or_one_per_label(threshold):
    spec = ModelSpec.parse(head(kind="multilabel", labels=["a", "b"], threshold=threshold))
    assert spec.heads["a"].threshold == (tuple(threshold) if isinstance(threshold, list) else threshold)


@pytest.mark.parametrize("version", ["1.0", "2", "v1", "1.0.0-rc.1", "2024_01", "x" * 32])
def test_good_versions_are_kept_as_they_are(version):
    assert ModelSpec.parse(changed("version", version)).version == version


# Writing


def test_a_spec_is_the_same_after_dump_and_load(tmp_path):
    spec = ModelSpec.load(written(tmp_path, FULL))
    spec.dump(tmp_path / "again.yaml")
    assert ModelSpec.load(tmp_path / "again.yaml") == spec
    assert spec != ModelSpec.parse(changed("heads", "person", "dim", 127))


def test_dump_keeps_the_order_and_leaves_defaults_out(tmp_path):
    path = tmp_path / "spec.yaml"
    ModelSpec.parse(yaml.safe_load(FULL)).dump(path)
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert data == yaml.safe_load(FULL)
    assert list(data["heads"]) == list(yaml.safe_load(FULL)["heads"])
    assert "°C" in path.read_text(encoding="utf-8")


LOOKALIKES = ["yes", "no", "on", "null", "~", "1", "1.0", "2024-01-01", "0x10", "1e3", ".nan", "<<"]
ODD = ["a: b", "# c", "- d", "'", '"', " e ", "\xa0", "\u2028", "\ufeff", "é", "日本", "🔥", "{", "%"]


@pytest.mark.parametrize("labels", [LOOKALIKES, ODD], ids=["lookalikes", "odd"])
def test_labels_that_yaml_might_misread_survive_the_file(tmp_path, labels):
    spec = ModelSpec.parse(changed("heads", "intent", "labels", labels))
    spec.dump(tmp_path / "spec.yaml")
    assert ModelSpec.load(tmp_path / "spec.yaml").heads["intent"].labels == tuple(labels)


@pytest.mark.parametrize(
    ("part", "attribute", "value"),
    [
        (lambda s: s, "name", "other"),
        (lambda s: s, "heads", {}),
        (lambda s: s.heads["intent"], "labels", ("a", "b")),
        (lambda s: s.inputs["photo"], "size", (1, 1)),
        (lambda s: s.inputs["text"], "new", 1),
    ],
)
def test_a_spec_cannot_be_changed_once_read(part, attribute, value):
    spec = ModelSpec.parse(yaml.safe_load(FULL))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(part(spec), attribute, value)
    assert spec == ModelSpec.parse(yaml.safe_load(FULL))


# Refusing: the structure

UNKNOWN = "is not a key that is known here: remove it, or check its spelling"


@pytest.mark.parametrize(
    "place",
    [
        ("headz",),
        ("inputs", "text", "max_len"),
        ("inputs", "photo", "widht"),
        ("inputs", "motion", "std"),
        ("heads", "intent", "treshold"),
        ("heads", "alerts", "unit"),
        ("heads", "temperature", "labels"),
        ("heads", "slots", "aggregate"),
        ("heads", "sentence", "normalise"),
        ("heads", "region", "size"),
        ("heads", "person", "normalise"),
    ],
    ids=".".join,
)
def test_an_unknown_key_is_refused_with_its_place(place):
    assert fault_of(changed(*place, 1)) == f"{'.'.join(place)}: {UNKNOWN}"


@pytest.mark.parametrize(
    "place",
    [
        ("name",),
        ("version",),
        ("inputs",),
        ("heads",),
        ("inputs", "text", "tokenizer"),
        ("inputs", "photo", "size"),
        ("inputs", "motion", "shape"),
        ("heads", "intent", "labels"),
        ("heads", "alerts", "labels"),
        ("heads", "slots", "labels"),
        ("heads", "region", "labels"),
        ("heads", "sentence", "dim"),
        ("heads", "person", "dim"),
    ],
    ids=".".join,
)
def test_a_missing_field_is_named(place):
    assert fault_of(changed(*place, ...)) == f"{'.'.join(place)}: is missing"


@pytest.mark.parametrize("place", [("inputs", "text"), ("heads", "intent")], ids=".".join)
def test_a_missing_kind_is_asked_for(place):
    assert fault_of(changed(*place, "kind", ...)) == f"{'.'.join(place)}: kind is missing: say which kind this is"


@pytest.mark.parametrize(
    ("place", "known"),
    [
        (("inputs", "text"), ("text", "image", "tensor")),
        (
            ("heads", "intent"),
            ("classification", "multilabel", "regression", "tokens", "embedding", "segmentation", "oneshot"),
        ),
    ],
)
def test_an_unknown_kind_is_told_the_known_ones(place, known):
    fault = fault_of(changed(*place, "kind", "clasification"))
    assert fault.startswith(f"{'.'.join(place)}: ")
    assert "'clasification'" in fault
    assert ", ".join(map(repr, known)) in fault


def test_further_faults_are_counted_and_the_first_is_told():
    data = changed("version", ...)
    del data["name"]
    assert fault_of(data) == "name: is missing (and 1 more)"


def test_a_head_named_like_a_kind_keeps_its_name_in_the_message():
    data = changed("heads", {"embedding": {"kind": "embedding", "dim": 0}})
    assert fault_of(data).startswith("heads.embedding.dim: ")


# Refusing: values


@pytest.mark.parametrize(
    ("place", "value", "got"),
    [
        (("name",), 7, "got 7: quote it"),
        (("name",), ["a"], "got ['a']"),
        (("description",), None, "got None"),
        (("description",), True, "got True: quote it"),
        (("inputs",), ["text"], "got ['text']"),
        (("heads",), "intent", "got 'intent'"),
        (("inputs", "text", "tokenizer"), 1, "got 1: quote it"),
        (("inputs", "text", "max_length"), "64", "got '64'"),
        (("inputs", "text", "max_length"), 64.0, "got 64.0"),
        (("inputs", "text", "max_length"), True, "got True"),
        (("inputs", "text", "max_length"), 0, "got 0"),
        (("inputs", "photo", "size"), 8, "got 8"),
        (("inputs", "photo", "size"), [8, 8, 3], "got [8, 8, 3]"),
        (("inputs", "photo", "resize"), "cubic", "got 'cubic'"),
        (("inputs", "photo", "channels"), "rgba", "got 'rgba'"),
        (("inputs", "photo", "mean"), 0.5, "got 0.5"),
        (("inputs", "motion", "dtype"), "float", "got 'float'"),
        (("inputs", "motion", "shape"), 6, "got 6"),
        (("inputs", "motion", "pad"), "0", "got '0'"),
        (("heads", "intent", "labels"), "light_on", "got 'light_on'"),
        (("heads", "intent", "labels"), ["light_on"], "got ['light_on']"),
        (("heads", "intent", "output"), 1.0, "got 1.0: quote it"),
        (("heads", "alerts", "labels"), [], "got []"),
        (("heads", "alerts", "threshold"), "high", "got 'high'"),
        (("heads", "alerts", "threshold"), None, "got None"),
        (("heads", "temperature", "unit"), 3, "got 3: quote it"),
        (("heads", "temperature", "dim"), 0, "got 0"),
        (("heads", "sentence", "normalize"), "yes", "got 'yes'"),
        (("heads", "sentence", "normalize"), 1, "got 1"),
        (("heads", "person", "dim"), "128", "got '128'"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_place(place, value, got):
    fault = fault_of(changed(*place, value))
    assert fault.startswith(".".join(place))
    assert got in fault


@pytest.mark.parametrize(
    ("shape", "got"), [([0], "got 0"), ([-1], "got -1"), ([2.5], "got 2.5"), (["1x"], "got '1x'"), ([True], "got True")]
)
def test_a_bad_dimension_is_refused_with_its_position(shape, got):
    fault = fault_of(only_input(kind="tensor", shape=[4, *shape]))
    assert fault.startswith("inputs.x.shape.1")
    assert got in fault


@pytest.mark.parametrize(
    ("written_as", "read_as"),
    [("yes", "True"), ("no", "False"), ("on", "True"), ("1", "1"), ("2.5", "2.5"), ("null", "None"), ("~", "None")],
)
@pytest.mark.parametrize("name", ["intent", "alerts", "slots", "region"])
def test_a_label_that_yaml_reads_as_no_string_asks_for_quotes(tmp_path, name, written_as, read_as):
    data = yaml.safe_dump(changed("heads", name, "labels", ["PLACEHOLDER", "b", "c"]))
    fault = fault_of_file(written(tmp_path, data.replace("PLACEHOLDER", written_as)))
    assert fault == f"heads.{name}.labels: label {read_as} is not a string: quote it"


@pytest.mark.parametrize("name", ["intent", "alerts", "slots", "region"])
def test_a_label_that_stands_twice_is_named(name):
    fault = fault_of(changed("heads", name, "labels", ["b", "a", "c", "a"]))
    assert fault == f"heads.{name}.labels: label 'a' stands more than once"


def test_an_empty_label_is_refused_with_its_position():
    fault = fault_of(head(kind="classification", labels=["a", ""]))
    assert fault.startswith("heads.a.labels.1: ")
    assert "got ''" in fault


def test_an_unquoted_version_asks_for_quotes(tmp_path):
    fault = fault_of_file(written(tmp_path, FULL.replace('"1.0"', "1.0", 1)))
    assert fault == "version: Input should be a valid string, got 1.0: quote it"


@pytest.mark.parametrize(
    ("date", "got"),
    [
        ("2024-01-01", "datetime.date(2024, 1, 1)"),
        ("2024-01-01 10:00:00", "datetime.datetime(2024, 1, 1, 10, 0)"),
    ],
)
def test_an_unquoted_date_as_version_asks_for_quotes(tmp_path, date, got):
    fault = fault_of_file(written(tmp_path, FULL.replace('"1.0"', date, 1)))
    assert fault == f"version: Input should be a valid string, got {got}: quote it"


@pytest.mark.parametrize("name", ["two\nlines", "a\rb", "a\x85b"])
def test_a_name_with_control_characters_is_shown_by_its_repr(name):
    pattern = "^[A-Za-z][A-Za-z0-9_-]{0,63}$"
    assert fault_of(changed(name, 1)) == f"{name!r}: {UNKNOWN}"
    assert fault_of(changed("heads", "intent", name, 1)) == f"heads.intent.{name!r}: {UNKNOWN}"
    for part, content in (("inputs", {"kind": "tensor", "shape": [1]}), ("heads", {"kind": "oneshot", "dim": 1})):
        fault = fault_of(changed(part, name, content))
        assert fault == f"{part}.{name!r}: String should match pattern '{pattern}', got {name!r}"


BAD_NAMES = ["../up", "a/b", "a\\b", ".hidden", "-x", "1st", "", "a b", "é", "a" * 65, "a.b"]


@pytest.mark.parametrize("name", [*BAD_NAMES, "a\n"])
def test_a_model_name_that_is_no_safe_folder_name_is_refused(name):
    fault = fault_of(changed("name", name))
    assert fault.startswith("name: String should match pattern")
    assert fault.endswith(f"got {name!r}")


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("part", ["inputs", "heads"])
def test_an_input_or_head_name_that_is_no_safe_file_name_is_refused(part, name):
    content = {"inputs": {"kind": "tensor", "shape": [1]}, "heads": {"kind": "oneshot", "dim": 1}}[part]
    fault = fault_of(changed(part, name, content))
    assert fault.startswith(f"{part}.")
    assert f"got {name!r}" in fault


@pytest.mark.parametrize("version", ["..", ".1", "../1", "1/0", "1\\0", "-1", "", "1 0", "1.0\n", "1" * 33, "ü"])
def test_a_version_that_is_no_safe_folder_name_is_refused(version):
    fault = fault_of(changed("version", version))
    assert fault.startswith("version: String should match pattern")
    assert fault.endswith(f"got {version!r}")


@pytest.mark.parametrize("part", ["inputs", "heads"])
def test_a_model_has_an_input_and_a_head(part):
    fault = fault_of(changed(part, {}))
    assert fault.startswith(f"{part}: ")
    assert "at least 1" in fault


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"std": [0.0]}, "std must be above 0, got (0.0,)"),
        ({"std": [0.1, -1.0, 0.1]}, "std must be above 0, got (0.1, -1.0, 0.1)"),
        ({"mean": [0.1, 0.2]}, "mean has 2 values for 3 channels: give one, or 3"),
        ({"std": [0.1, 0.2, 0.3, 0.4]}, "std has 4 values for 3 channels: give one, or 3"),
        ({"mean": []}, "mean has 0 values for 3 channels: give one, or 3"),
        ({"mean": [0.1, 0.2, 0.3], "channels": "gray"}, "mean has 3 values for 1 channels: give one, or 1"),
    ],
)
def test_an_impossible_normalisation_is_refused(image, message):
    assert fault_of(only_input(kind="image", size=[8, 8], **image)) == f"inputs.x: {message}"


FINITE, NUMBER = "Input should be a finite number", "Input should be a valid number"


@pytest.mark.parametrize("key", ["mean", "std"])
@pytest.mark.parametrize(
    ("value", "message"),
    [(float("nan"), FINITE), (float("inf"), FINITE), (-float("inf"), FINITE), ("0.5", NUMBER), (True, NUMBER)],
)
def test_a_mean_or_deviation_that_is_no_finite_number_is_refused_with_its_position(key, value, message):
    fault = fault_of(only_input(kind="image", size=[8, 8], **{key: [0.1, value, 0.2]}))
    assert fault == f"inputs.x.{key}.1: {message}, got {value!r}"


@pytest.mark.parametrize(
    ("pad", "message"),
    [(float("nan"), FINITE), (float("inf"), FINITE), ("0", NUMBER), (True, NUMBER), ([1], NUMBER)],
)
def test_a_pad_that_is_no_finite_number_is_refused(pad, message):
    fault = fault_of(changed("inputs", "motion", "pad", pad))
    assert fault == f"inputs.motion.pad: {message}, got {pad!r}"


def test_an_input_and_a_head_of_one_name_are_refused():
    data = {"name": "m", "version": "1", "inputs": {"x": {"kind": "tensor", "shape": [1]}}, "heads": {}}
    data["heads"]["x"] = {"kind": "regression"}
    assert "'x' is the name of an input and of a head: rename one" in fault_of(data)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_thresholds_must_be_one_per_label(count):
    fault = fault_of(changed("heads", "alerts", "threshold", [0.5] * count))
    assert fault == f"heads.alerts: threshold has {count} values for 2 labels: give one, or one per label"


@pytest.mark.parametrize(
    ("threshold", "place", "message"),
    [
        (1.5, "", "Input should be less than or equal to 1, got 1.5"),
        (-0.1, "", "Input should be greater than or equal to 0, got -0.1"),
        (float("nan"), "", f"{FINITE}, got nan"),
        ("0.5", "", f"{NUMBER}, got '0.5'"),
        (True, "", f"{NUMBER}, got True"),
        (None, "", f"{NUMBER}, got None"),
        ([0.5, 2], ".1", "Input should be less than or equal to 1, got 2"),
        ([-1.0, 0.5], ".0", "Input should be greater than or equal to 0, got -1.0"),
        ([0.5, float("nan")], ".1", f"{FINITE}, got nan"),
        (["0.3"], ".0", f"{NUMBER}, got '0.3'"),
        ([0.5, False], ".1", f"{NUMBER}, got False"),
    ],
)
def test_a_threshold_that_is_no_number_from_0_to_1_is_refused_with_its_place(threshold, place, message):
    fault = fault_of(changed("heads", "alerts", "threshold", threshold))
    assert fault == f"heads.alerts.threshold{place}: {message}"


@pytest.mark.parametrize("name", ["intent", "alerts", "slots", "region"])
@pytest.mark.parametrize("label", ["two\nlines", "\r", "\t", "\x00", "\x1f", "\x7f", "\x85", "\x9f"])
def test_a_label_with_a_control_character_is_refused_with_its_position(name, label):
    fault = fault_of(changed("heads", name, "labels", ["a", "b", label]))
    pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    assert fault == f"heads.{name}.labels.2: String should match pattern '{pattern}', got {label!r}"


TEXTS = [("description",), ("heads", "intent", "description"), ("heads", "temperature", "unit")]


@pytest.mark.parametrize("place", TEXTS, ids=".".join)
def test_a_text_may_have_lines_and_tabs(tmp_path, place):
    spec = ModelSpec.parse(changed(*place, "one\n\ttwo\n"))
    spec.dump(tmp_path / "spec.yaml")
    again = ModelSpec.load(tmp_path / "spec.yaml")
    assert again == spec
    assert "one\n\ttwo\n" in (again.description, again.heads["intent"].description, again.heads["temperature"].unit)


@pytest.mark.parametrize("place", TEXTS, ids=".".join)
@pytest.mark.parametrize("text", ["a\rb", "\x00", "\x0b", "\x1b[31m", "\x7f", "\x85"])
def test_a_text_with_another_control_character_is_refused(place, text):
    pattern = r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$"
    assert fault_of(changed(*place, text)) == (
        f"{'.'.join(place)}: String should match pattern '{pattern}', got {text!r}"
    )


def test_a_tokens_head_needs_a_text_input():
    fault = fault_of(changed("inputs", {"x": {"kind": "tensor", "shape": [4]}}))
    assert fault == "the top level: head 'slots' labels tokens, but no input is of kind text"


@pytest.mark.parametrize("name", ["polyhead_packed", "Polyhead_x", "POLYHEAD_"])
def test_the_reserved_prefix_is_no_head_name(name):
    fault = fault_of(changed("heads", {name: {"kind": "regression"}}))
    assert fault == f"the top level: head name {name!r} begins with 'polyhead_', which is reserved: rename it"


def test_an_input_may_begin_with_what_is_reserved_for_heads():
    data = {**head(kind="regression"), "inputs": {"polyhead_x": {"kind": "tensor", "shape": [1]}}}
    assert list(ModelSpec.parse(data).inputs) == ["polyhead_x"]


# Refusing: files


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        (FULL + "name: other\n", "name", 17),
        (FULL + "  person: {kind: oneshot, dim: 64}\n", "person", 17),
        (FULL.replace("max_length: 64", "max_length: 64, max_length: 32"), "max_length", 6),
        (FULL + "  1: x\n  1: y\n", 1, 18),
    ],
    ids=["top level", "head", "inside an input", "number"],
)
def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path, text, key, line):
    fault = fault_of_file(written(tmp_path, text))
    assert f"key {key!r} stands twice" in fault
    assert f"line {line}, " in fault


@pytest.mark.parametrize(
    "text",
    ["{a: [b", "a:\n\t- b", "a: \x00", "a: 1\n---\nb: 2", "a: *nowhere", "!!python/object/apply:os.getcwd []"],
    ids=["unclosed", "tab", "control character", "two documents", "no anchor", "python object"],
)
def test_a_file_that_is_no_plain_yaml_is_refused(tmp_path, text):
    assert fault_of_file(written(tmp_path, text)).startswith("is not YAML: ")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("? [a, b]\n: c", "unhashable type: 'list'"),
        ("{a: b}: c", "unhashable type: 'dict'"),
        ("a: 2024-13-45", "month must be in 1..12"),
        ("a: !!int abc", "invalid literal for int() with base 10: 'abc'"),
        ("a: !!float x", "could not convert string to float: 'x'"),
        ("!!map [a]", "expected a mapping node, but found sequence"),
        ("a: !!set [b]", "expected a mapping node, but found sequence"),
        ("[" * 3000, "maximum recursion depth exceeded"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "merge keys (<<) are not read in"),
        ("<<: {name: m}\n", "merge keys (<<) are not read in"),
    ],
    ids=["list as key", "mapping as key", "date", "int", "float", "map", "set", "deep", "merge", "merge at the top"],
)
def test_odd_yaml_is_refused_with_its_reason(tmp_path, text, reason):
    assert fault_of_file(written(tmp_path, text)).startswith(f"is not YAML: {reason}")


@pytest.mark.parametrize(
    "text",
    [
        "a: !!timestamp x",
        "a: !!bool x",
    ],
)
def test_a_tag_that_does_not_fit_its_value_is_refused(tmp_path, text):
    assert fault_of_file(written(tmp_path, text)).startswith("is not YAML: ")


@pytest.mark.parametrize(("text", "got"), [("", "None"), ("- name", "['name']"), ("smarthome", "'smarthome'")])
def test_a_file_without_a_mapping_is_refused(tmp_path, text, got):
    fault = fault_of_file(written(tmp_path, text))
    assert fault.startswith("the top level: ")
    assert fault.endswith(f"got {got}")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: folder / "missing.yaml", "No such file or directory"),
        (lambda folder: folder, "Is a directory"),
        (lambda folder: written(folder, b"name: \xff\xfe"), "can't decode byte 0xff"),
    ],
    ids=["missing", "folder", "no UTF-8"],
)
def test_a_file_that_cannot_be_read_is_a_spec_error(tmp_path, make, reason):
    fault = fault_of_file(make(tmp_path))
    assert fault.startswith("cannot be read (")
    assert reason in fault
    assert fault.endswith(": give a YAML file")


def test_an_error_without_a_source_says_spec():
    with pytest.raises(SpecError, match=r"^spec: name: is missing$"):
        ModelSpec.parse(changed("name", ...))


# Importing


@pytest.mark.parametrize("module", ["polyhead.models.spec", "polyhead.models.run"])
def test_importing_does_not_import_torch(module):
    code = f"import sys, {module}; print(*sorted({{'torch', 'lightning', 'numpy', 'sklearn'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
