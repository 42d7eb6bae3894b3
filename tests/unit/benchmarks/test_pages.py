"""Tables inside of pages that are written by hand."""

import pytest

from benchmarks.pages import insert, number_words


def test_a_table_takes_the_place_of_the_one_before_and_nothing_else_changes(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Page\n\nabove\n<!-- a -->\nold\n<!-- /a -->\nbelow\n<!-- b -->\n<!-- /b -->\n")
    insert(page, "a", "new\n", "unused")
    wanted = "# Page\n\nabove\n<!-- a -->\nnew\n<!-- /a -->\nbelow\n<!-- b -->\n<!-- /b -->\n"
    assert page.read_text() == wanted
    insert(page, "a", "new\n", "unused")
    assert page.read_text() == wanted


def test_a_page_that_is_not_there_is_made_and_a_mark_that_is_not_there_is_added(tmp_path):
    page = tmp_path / "page.md"
    insert(page, "a", "first", "Headline")
    insert(page, "b", "second", "Headline")
    assert page.read_text() == "# Headline\n\n<!-- a -->\nfirst\n<!-- /a -->\n\n<!-- b -->\nsecond\n<!-- /b -->\n"


@pytest.mark.parametrize("content", ["<!-- a -->\n", "<!-- /a --><!-- a -->", "<!-- a --><!-- a --><!-- /a -->"])
def test_a_page_with_half_a_pair_of_marks_is_left_as_it_is(tmp_path, content):
    page = tmp_path / "page.md"
    page.write_text(content)
    with pytest.raises(ValueError, match=r"page\.md: <!-- a --> and, below it, <!-- /a --> must stand there once each"):
        insert(page, "a", "new", "Headline")
    assert page.read_text() == content


@pytest.mark.parametrize(
    ("value", "words"), [(0.0, "0"), (3.81e-6, "3.8e-6"), (0.0506, "5.1e-2"), (1.0, "1.0e0"), (12.34, "1.2e1")]
)
def test_a_difference_is_short(value, words):
    assert number_words(value) == words
