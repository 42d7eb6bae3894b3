"""Takes the pictures of docs/console.md from a server that runs.

Example: python -m tests.screenshots http://127.0.0.1:8080 docs --key "$POLYHEAD_API_KEY"
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page

from tests.e2e.browser import chromium

DESK = {"viewport": {"width": 1280, "height": 860}}
PHONE = {"viewport": {"width": 360, "height": 1560}, "device_scale_factor": 1.5, "is_mobile": True, "has_touch": True}
COLOURS = 192  # of a picture: a page of text needs no more, and it is a third of the size
LARGEST = 150_000  # bytes
SETTLE = 7000  # milliseconds in which the live figures come
SENTENCE = "Set the heating in Zoë's room to 21.5°C at half past six"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="of the front door, or of the side server of `polyhead serve --console`")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--key", default="", help="an API key, where the front door wants one")
    parser.add_argument("--settle", type=int, default=SETTLE)
    given = parser.parse_args()
    with chromium() as browser:
        Camera(browser, given.url.rstrip("/"), given.folder, given.key, given.settle).take()


class Camera:
    """Takes one picture after the other of one server; models that it does not serve are left out."""

    def __init__(self, browser: Browser, url: str, folder: Path, key: str, settle: int) -> None:
        self.browser, self.url, self.folder, self.key, self.settle = browser, url, folder, key, settle

    def take(self) -> None:
        page = self._page("", **DESK)
        served = page.locator(".rail .name").all_inner_texts()
        page.context.close()
        for model in served:
            for scheme in ("light", "dark"):
                self._answered(model, f"console-{model}-{scheme}", color_scheme=scheme, **DESK)
        self._answered(served[0], f"console-{served[0]}-phone", **PHONE)
        self._answered(served[-1], f"console-{served[-1]}-phone", **PHONE)
        self._refused(served[-1])
        page = self._page("docs", **DESK)
        page.locator(".operation", has_text="/predictions/").first.locator("> summary").click()
        page.wait_for_timeout(500)
        page.locator(".operation[open]").evaluate("node => node.scrollIntoView()")
        self._save(page, "console-docs")

    def _page(self, path: str, **options: object) -> Page:
        context = self.browser.new_context(ignore_https_errors=True, reduced_motion="reduce", **options)
        context.add_init_script(f"sessionStorage.setItem('polyhead.key', {self.key!r})" if self.key else "")
        page = context.new_page()
        page.goto(f"{self.url}/{path}")
        page.wait_for_selector("#send, .operation")
        return page

    def _answered(self, model: str, name: str, **options: object) -> None:
        page = self._page(f"#{model}", **options)
        page.wait_for_timeout(self.settle)
        if model == "smarthome":
            page.fill("textarea.sentence", SENTENCE)
        if model == "digits" and page.locator("canvas.drawing").count():
            three(page)
        for _ in range(3):
            page.click("#send")
            page.wait_for_selector(".result:not(.busy) .card")
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur()")
        self._save(page, name, full="phone" not in name)

    def _refused(self, model: str) -> None:
        page = self._page(f"#{model}", **DESK)
        for area in page.locator(".form textarea.sentence, .form .panels > :first-child textarea.code").all():
            area.fill("light " * 400 if "sentence" in (area.get_attribute("class") or "") else "[1, 2, oh]")
        page.click("#send")
        page.wait_for_selector(".error, .fault:not([hidden])")
        page.wait_for_timeout(300)
        self._save(page, "console-error")

    def _save(self, page: Page, name: str, full: bool = False) -> None:
        picture = Image.open(io.BytesIO(page.screenshot(full_page=full))).convert("RGB")
        file = self.folder / f"{name}.png"
        picture.quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
        page.context.close()
        size = file.stat().st_size
        print(f"{file}: {picture.width} x {picture.height}, {size} bytes{' TOO LARGE' if size > LARGEST else ''}")


def three(page: Page) -> None:
    """Draw a digit as a hand would."""
    page.get_by_role("button", name="Clear").click()
    box = page.locator("canvas.drawing").bounding_box()
    assert box is not None
    places = [(0.3, 0.2), (0.5, 0.13), (0.66, 0.25), (0.6, 0.4), (0.45, 0.48), (0.65, 0.57), (0.68, 0.75)]
    places += [(0.5, 0.87), (0.3, 0.8)]
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=6)
    page.mouse.up()


if __name__ == "__main__":
    main()
