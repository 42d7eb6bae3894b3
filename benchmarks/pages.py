"""A page of `docs/` that is written by hand but for its tables, each between two marks."""

from __future__ import annotations

from pathlib import Path

__all__ = ["insert", "number_words"]


def insert(page: Path, mark: str, text: str, headline: str) -> None:
    """Put a text between `<!-- mark -->` and `<!-- /mark -->`, in place of what was there.

    Args:
        page: Markdown; made, with the headline, where it is not there.
        mark: where the page lacks both of its marks, they go to the end.
        text: Markdown.
        headline: of a new page.

    Raises:
        ValueError: the page has one of the two marks, or one more than once, or in the wrong order.
    """
    start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    content = page.read_text(encoding="utf-8") if page.is_file() else f"# {headline}\n"
    if start not in content and end not in content:
        content += f"\n{start}\n{end}\n"
    if content.count(start) != 1 or content.count(end) != 1 or content.index(start) > content.index(end):
        raise ValueError(f"{page.name}: {start} and, below it, {end} must stand there once each: mend the page")
    before, after = content[: content.index(start)], content[content.index(end) + len(end) :]
    page.write_text(f"{before}{start}\n{text.strip()}\n{end}{after}", encoding="utf-8")


def number_words(value: float) -> str:
    """`1.2e-6`."""
    digits, _, exponent = f"{value:.1e}".partition("e")
    return "0" if value == 0 else f"{digits}e{int(exponent)}"
