from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import fs

from polyhead.serving.scoring import copying


@pytest.mark.parametrize("largest", [10, 1000])
def test_a_file_that_the_store_does_not_copy_passes_through(
    tmp_path: Path, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "LARGEST", largest)
    monkeypatch.setattr(copying, "PIECE", 7)
    (tmp_path / "a").write_bytes(bytes(range(100)))
    (tmp_path / "b").write_bytes(b"before")
    copying.copy(fs.LocalFileSystem(), str(tmp_path / "a"), str(tmp_path / "b"), 100)
    assert (tmp_path / "b").read_bytes() == bytes(range(100))
