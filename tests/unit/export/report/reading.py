"""A page as a reader of HTML finds it; what is closed out of order fails."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta"}


class Page(HTMLParser):
    """Tags with their attributes, texts, and tables by caption: the first row is the heading."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._caption, self._rows, self._cell = "", [], None
        self.feed(text)
        self.close()
        assert self.open == []

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            assert self._caption not in self.tables
            self.tables[self._caption] = self._rows
        elif tag in ("td", "th"):
            self._rows[-1].append(" ".join(self._cell))
            self._cell = None

    def handle_data(self, data):
        if "style" in self.open or not data.strip():
            return
        self.texts.append(data.strip())
        if "caption" in self.open:
            self._caption += data.strip()
        elif self._cell is not None:
            self._cell.append(data.strip())
