"""A folder of images: every file a row, in the order of paths; one that cannot be read is lost alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyhead.serving.scoring.errors import InputChanged, JobRefused
from polyhead.serving.scoring.sources import images
from tests.unit.serving.scoring.inputs import TEXTS, Opened, everything, spec_of

PICTURE = {"kind": "image", "size": [8, 8], "channels": "gray", "mean": [0.5], "std": [0.25]}
PICTURES = spec_of(photo=PICTURE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a/x.JPG", "a/y.jpeg", "c.jpg", ".hidden.png", "_old/z.png", "a/.thumbs/t.png", "labels.txt"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"<{name}>".encode())
    return tmp_path / "in"


def test_every_image_is_a_row_of_its_path_and_its_bytes(folder: Path) -> None:
    opened = Opened(folder, PICTURES, unit_rows=3, format="images")
    assert [(unit.rows, unit.first_row, len(unit.files)) for unit in opened.units] == [(3, 0, 3), (1, 3, 1)]
    chunks = opened.chunks(chunk_rows=2)
    names = ["a/x.JPG", "a/y.jpeg", "b.png", "c.jpg"]
    assert everything(chunks, "path") == names
    assert everything(chunks, "photo") == [f"<{name}>".encode() for name in names]
    assert [opened.units[0].file_of(row) for row in range(3)] == [f"{folder}/{name}" for name in names[:3]]
    assert opened.units[1].file_of(0) == f"{folder}/c.jpg"


def test_images_are_found_by_a_pattern_and_filtered_by_their_paths(folder: Path) -> None:
    opened = Opened(f"{folder}/**/*.j*", PICTURES, filter="path != 'c.jpg' and path is not null")
    assert everything(opened.chunks(), "path") == ["a/y.jpeg"] or everything(opened.chunks(), "path") == [
        "a/x.JPG",
        "a/y.jpeg",
    ]
    [unit] = Opened(folder / "b.png", PICTURES).units
    assert unit.file_of(0) == f"{folder}/b.png"
    assert everything(Opened(folder / "b.png", PICTURES).chunks(), "path") == ["b.png"]


def test_units_and_chunks_are_bounded_by_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "UNIT_BYTES", 12)
    opened = Opened(folder, PICTURES, format="images")
    assert [unit.rows for unit in opened.units] == [1, 1, 1, 1]
    monkeypatch.undo()
    [unit] = (opened := Opened(folder, PICTURES, format="images")).units
    sizes = [chunk.total for chunk in opened.source().read(unit, chunk_rows=9, chunk_bytes=20)]
    assert sizes == [2, 2]


def test_an_image_larger_than_a_row_may_be_is_lost_alone(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"x" * 100)
    opened = Opened(folder, PICTURES, format="images", max_row_bytes=50)
    [chunk] = opened.chunks()
    assert chunk.passed.column("path").to_pylist() == ["a/x.JPG", "a/y.jpeg", "c.jpg"]
    [fault] = chunk.faults
    assert (fault.row, fault.stage, fault.type) == (2, "read", "unreadable")
    assert "100 bytes, allowed are 50" in fault.message


def test_a_folder_that_changed_is_refused(folder: Path) -> None:
    opened = Opened(folder, PICTURES, format="images")
    (folder / "c.jpg").write_bytes(b"longer than it was")
    with pytest.raises(InputChanged, match=r"c\.jpg: changed"):
        opened.chunks()


def test_what_a_folder_of_images_cannot_be_is_refused(folder: Path) -> None:
    with pytest.raises(JobRefused, match=r"labels\.txt: its name tells no format"):
        Opened(folder, PICTURES)
    with pytest.raises(JobRefused, match=r"cannot fill the inputs of model m \(text: text\)"):
        Opened(folder, TEXTS, format="images")
    (folder / "labels.txt").rename(folder / "labels.csv")
    with pytest.raises(JobRefused, match="several formats"):
        Opened(folder, PICTURES)
    with pytest.raises(JobRefused, match="no images there"):
        Opened(folder / "labels.csv", PICTURES, format="images")
