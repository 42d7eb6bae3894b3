"""The declared schema: what is written, before anything is run."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from polyhead.serving.scoring.errors import JobRefused
from polyhead.serving.scoring.schema import output_schema
from polyhead.serving.scoring.scorer import Scorer
from polyhead.serving.scoring.settings import ScoreSettings
from tests.unit.serving.scoring.tables import scored
from tests.unit.serving.scoring.test_scorer import memory_of

PASSED = pa.schema([pa.field("id", pa.string(), metadata={"of": "the input"})])


@pytest.mark.parametrize("options", [{}, {"top_k": 2, "scores": True, "raw": True}, {"mask": "png"}])
@pytest.mark.parametrize("name", ["mlp", "picture", "field", "lexicon", "reader", "pair"])
def test_what_is_declared_is_what_comes(name: str, options: dict[str, Any], request):
    example = request.getfixturevalue(name)
    settings = ScoreSettings(device="cpu", **options)
    declared = output_schema(example.bundle, settings, pa.schema([("id", pa.string())]))
    table, _ = scored(Scorer(example.engine(), settings), memory_of(example, 3))
    assert table.schema.equals(declared, check_metadata=True)
    assert "dictionary" not in str(declared)


def test_columns_are_in_the_order_asked_for(mlp):
    settings = ScoreSettings(heads=("level", "color"))
    schema = output_schema(mlp.bundle, settings, PASSED)
    assert schema.names == ["id", "level", "color"]
    assert schema.field("id").metadata == {b"of": b"the input"}
    assert schema.field("level").metadata == {b"kind": b"regression"}
    assert schema.field("level").type.field("value").metadata == {b"unit": b"K"}
    assert schema.field("color").type == pa.struct({"label": pa.string(), "score": pa.float32(), "index": pa.int32()})


def test_a_head_that_is_none_is_refused(mlp):
    with pytest.raises(JobRefused, match=r"head 'colour' is not in model mlp 1.0 \(heads: tags, color, "):
        output_schema(mlp.bundle, ScoreSettings(heads=("colour",)), PASSED)


def test_a_column_with_a_head_s_name_is_refused(mlp):
    passed = pa.schema([("level", pa.int32())])
    with pytest.raises(JobRefused, match="column 'level' and head 'level' would both be 'level'"):
        output_schema(mlp.bundle, ScoreSettings(), passed)
    assert output_schema(mlp.bundle, ScoreSettings(heads=("color",)), passed).names == ["level", "color"]
