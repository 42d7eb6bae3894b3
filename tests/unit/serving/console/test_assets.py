"""The console's files: which there are, with what headers, and that nothing in them reaches outside."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from polyhead.serving.console import assets
from polyhead.serving.console.assets import FOLDER, asset

PAGES = {"/": "index.html", "/docs": "docs.html"}
FILES = sorted(path for path in FOLDER.iterdir() if path.suffix in assets.TYPES)
SCRIPTS = [path for path in FILES if path.suffix == ".js"]


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_data(self, data):
        assert not (self.inside and self.inside[-1] in ("script", "style") and data.strip()), data


@pytest.mark.parametrize(("path", "name"), PAGES.items())
def test_the_pages_stand_at_their_paths(path, name):
    found = asset(path)
    assert found.body == (FOLDER / name).read_bytes()
    assert found.content_type == "text/html; charset=utf-8"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_served_with_its_type_and_a_tag_of_its_bytes(path: Path):
    url = next((url for url, name in PAGES.items() if name == path.name), f"/console/{path.name}")
    found = asset(url)
    assert found.body == path.read_bytes()
    assert found.headers["ETag"] == f'"{hashlib.sha256(found.body).hexdigest()[:16]}"' == found.etag
    assert found.headers["Content-Type"] == found.content_type == assets.TYPES[path.suffix]
    assert found.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    ["", "/console", "/console/", "/console/index.html", "/console/assets.py", "/console/../assets.py", "/favicon.ico"],
)
def test_nothing_else_is(path):
    assert asset(path) is None


@pytest.mark.parametrize("path", ["/console/app.js/", "/console/%61pp.js", "//", "/console/app.js\0", "/docs/"])
def test_no_other_spelling_is(path):
    assert asset(path) is None


def test_the_policy_forbids_all_but_the_page_itself():
    policy = dict(part.strip().partition(" ")[::2] for part in asset("/").headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["img-src"] == "'self' data: blob:"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"


@pytest.mark.parametrize("name", PAGES.values())
def test_a_page_has_nothing_in_line_and_refers_to_what_there_is(name):
    tags = Tags((FOLDER / name).read_text(encoding="utf-8")).tags
    assert all(not key.startswith("on") and key != "style" for _, attributes in tags for key in attributes)
    wanted = [attributes.get("src") or attributes.get("href") for _, attributes in tags]
    for reference in [one for one in wanted if one and one.startswith("console/")]:
        assert asset(f"/{reference}") is not None, reference
    assert {attributes.get("lang") for tag, attributes in tags if tag == "html"} == {"en"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_names_another_server(path: Path):
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z0-9-]+\.|@import|\burl\(", text)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_makes_no_markup_and_imports_what_there_is(path: Path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)
    imported = re.findall(r'from "\./([\w.]+)"', text)
    assert all((FOLDER / name).is_file() for name in imported)
    for names, name in re.findall(r'import \{([^}]*)\} from "\./([\w.]+)"', text):
        there = (FOLDER / name).read_text(encoding="utf-8")
        for one in filter(None, (part.strip() for part in names.split(","))):
            assert re.search(rf"export (async )?(function|class|const) {one}\b", there), f"{one} of {name}"
            assert len(re.findall(rf"\b{one}\b", text)) > 1, f"{one} is imported and not used"


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix != ".svg"], ids=lambda path: path.name)
def test_a_file_is_short_enough_to_be_read(path: Path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) <= 140
    assert len(lines) <= 330 or path.suffix == ".css"
