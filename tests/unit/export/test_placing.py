"""Folders of ours are replaced whole; anything else is left alone."""

from __future__ import annotations

import pytest

from polyhead.export.errors import ExportError
from polyhead.export.placing import Kind, claim, place

KIND = Kind("box", ("mark.txt", b"ours"), ("mark.txt", "*.data"))


def box(folder, content="1"):
    folder.mkdir()
    (folder / "mark.txt").write_text("ours, written today")
    (folder / "a.data").write_text(content)
    return folder


def test_a_free_place_is_taken_as_it_is(tmp_path):
    assert claim(tmp_path / "new", False, KIND) == tmp_path / "new"


def test_what_is_there_is_kept_without_force(tmp_path):
    box(tmp_path / "there")
    with pytest.raises(ExportError, match="there exists already: give another --out, or --force to replace it"):
        claim(tmp_path / "there", False, KIND)
    assert claim(tmp_path / "there", True, KIND) == tmp_path / "there"


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda folder: (folder / "mark.txt").unlink(), "is no box of polyhead package"),
        (lambda folder: (folder / "mark.txt").write_text("theirs"), "is no box of polyhead package"),
        (
            lambda folder: (folder / "notes.md").write_text("mine"),
            "holds notes.md, which polyhead package did not write",
        ),
    ],
)
def test_what_is_not_ours_alone_is_kept_even_with_force(tmp_path, spoil, fault):
    spoil(box(tmp_path / "there"))
    with pytest.raises(ExportError) as caught:
        claim(tmp_path / "there", True, KIND)
    assert str(caught.value) == (
        f"{tmp_path / 'there'} {fault}: --force would remove it; move it away, or give another --out"
    )


def test_a_file_is_no_folder_of_ours(tmp_path):
    (tmp_path / "there").write_text("mine")
    with pytest.raises(ExportError, match="is no box"):
        claim(tmp_path / "there", True, KIND)


def test_a_link_is_followed(tmp_path):
    box(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    assert claim(tmp_path / "link", True, KIND) == tmp_path / "real"


def test_a_folder_takes_the_place_of_another_and_leaves_nothing_else(tmp_path):
    place(box(tmp_path / "first", "1"), tmp_path / "out")
    place(box(tmp_path / "second", "2"), tmp_path / "out")
    assert (tmp_path / "out" / "a.data").read_text() == "2"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_cannot_be_moved_leaves_the_old_one(tmp_path):
    box(tmp_path / "out", "1")
    with pytest.raises(FileNotFoundError):
        place(tmp_path / "missing", tmp_path / "out")
    assert (tmp_path / "out" / "a.data").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
