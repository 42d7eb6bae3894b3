"""A real browser on a real page, held to what every page must keep: no error, nothing from outside, nothing in line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT = 15_000  # milliseconds for anything to appear
VIOLATIONS = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.__violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """An installed Chromium; skips where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium on the PATH: apt-get install chromium (Debian's package)")
    with sync_playwright() as playwright:
        # Without a user namespace of its own, as in a container, its sandbox cannot be set up.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page_of(browser: Browser, origin: str, **options: Any) -> Iterator[Page]:
    """A page with its own storage. At the end it must have been quiet, and have asked its own origin alone."""
    context = browser.new_context(**{"viewport": {"width": 1360, "height": 900}, **options})
    context.add_init_script(VIOLATIONS)
    page = context.new_page()
    page.set_default_timeout(WAIT)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    try:
        yield page
        host = urlsplit(origin).netloc
        assert [url for url in asked if urlsplit(url).netloc != host and not url.startswith(("data:", "blob:"))] == []
        assert page.evaluate("window.__violations") == []
        # That a refused request is noted is the browser's doing, and no fault of the page.
        assert [text for text in said if "Failed to load resource" not in text] == []
    finally:
        context.close()
