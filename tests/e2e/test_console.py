"""The console in a real browser, before a real server: what it draws is what HTTP answers."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser import WAIT, chromium, page_of
from tests.e2e.mixed import SPEC, mixed_bundle
from tests.server import Running, serving

MODELS = ("digits/1.0", "wine/1.0", "mixed/1.0")
BACKGROUNDS = ("light", "dark")
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
ROW = [1.71, 2.43, 15.6, 127, 2.8, 3.06, 0.28, 2.29, 5.64, 1.04, 3.92, 1065]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_bundle(tmp_path_factory.mktemp("bundles") / "mixed")


@pytest.fixture(scope="module")
def running(digits_bundle: Path, wine: dict[str, Path], mixed: Path) -> Iterator[Running]:
    """A picture, numbers, and a sentence beside a picture; what is answered to each word is known."""
    with serving([digits_bundle, wine["bundle"], mixed], "--console") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def open_page(browser: Browser, running: Running) -> Iterator[Callable[..., Page]]:
    """Opens the console at a model; what it must keep is asserted when the test ends."""
    made = []

    def opened(path: str = "", **options: object) -> Page:
        manager = page_of(browser, running.side, **options)
        page = manager.__enter__()
        made.append(manager)
        page.goto(f"{running.side}/{path}")
        page.wait_for_selector("#send, .operation, .error")
        return page

    yield opened
    for manager in made:
        manager.__exit__(None, None, None)


def asked(page: Page) -> tuple[dict, dict]:
    """Press the button: the request as it was sent, the answer as it came."""
    with page.expect_response(lambda response: "/predictions/" in response.url) as caught:
        page.click("#send")
    response = caught.value
    page.wait_for_selector(".result:not(.busy)")
    return json.loads(response.request.post_data), response.json()


def until(true: Callable[[], object], page: Page) -> None:
    """Let the page run until something is so."""
    end = time.monotonic() + WAIT / 1000
    while not true():
        assert time.monotonic() < end
        page.wait_for_timeout(20)


def over_http(running: Running, model: str, request: dict) -> list[dict]:
    response = running.predict(model, request)
    assert response.status_code == 200, response.text
    return response.json()["predictions"]


def bars(page: Page, head: str) -> list[tuple[str, str]]:
    items = page.locator(f'.card[data-head="{head}"] .bars li')
    return [
        (item.locator(".label").inner_text(), item.locator(".value").inner_text().split(",")[0]) for item in items.all()
    ]


def written(score: float) -> str:
    """A score as the page writes it."""
    if 0.999 < score < 1:
        return f"{score:.5f}"
    return re.sub(r"e-0(\d)$", r"e-\1", f"{score:.1e}") if 0 < score < 0.0001 else f"{score:.4f}"


def lead(page: Page, head: str) -> str:
    return page.locator(f'.card[data-head="{head}"] .lead strong').first.inner_text()


def draw_seven(page: Page) -> None:
    box = page.locator("canvas.drawing").bounding_box()
    places = [(0.3, 0.2), (0.7, 0.2), (0.5, 0.55), (0.4, 0.85)]
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=8)
    page.mouse.up()


def test_a_sentence_is_typed_and_every_head_drawn_as_http_answers_it(open_page, running):
    page = open_page("#mixed/1.0")
    sentence = "🏠 the kitchen room and 2.5"
    page.fill("textarea.sentence", sentence)
    request, shown = asked(page)
    assert request["instances"][0]["said"] == sentence
    [answer] = over_http(running, "mixed", request)
    assert shown["predictions"] == [answer]
    found = [(one["label"], one["text"]) for one in answer["slots"]["entities"]]
    assert ("room", "kitchen room") in found
    marks = page.locator('.card[data-head="slots"] mark')
    assert [mark.evaluate("it => [it.lastChild.textContent, it.firstChild.textContent]") for mark in marks.all()] == [
        list(one) for one in found
    ]
    pieces = "it => [...it.childNodes].map((node) => (node.firstChild ?? node).textContent).join('')"
    assert page.locator('.card[data-head="slots"] .marked').evaluate(pieces) == sentence
    assert float(lead(page, "words")) == pytest.approx(answer["words"]["value"], rel=1e-3)
    places = page.locator('.card[data-head="place"] .lead strong').all()
    assert [float(place.inner_text()) for place in places] == pytest.approx(answer["place"]["value"], rel=1e-3)
    card = page.locator('.card[data-head="who"]').inner_text()
    assert answer["who"]["label"] is None
    assert "no class is near enough" in card
    assert f"distance {answer['who']['distance']:.4g}, at most 0.25 counts" in card


def test_each_label_has_its_own_threshold_and_what_holds_is_said(open_page, running):
    page = open_page("#mixed/1.0")
    request, _ = asked(page)
    [answer] = over_http(running, "mixed", request)
    scores, held = answer["tags"]["all_scores"], answer["tags"]["labels"]
    order = sorted(scores, key=lambda label: (label not in held, -scores[label]))
    assert bars(page, "tags") == [(label, written(scores[label])) for label in order]
    for item in page.locator('.card[data-head="tags"] .bars li').all():
        label = item.get_attribute("data-label")
        threshold = SPEC["heads"]["tags"]["threshold"][SPEC["heads"]["tags"]["labels"].index(label)]
        assert item.locator(".tick").evaluate("it => parseFloat(it.style.left)") == pytest.approx(100 * threshold)
        assert (item.locator(".off-screen").text_content() == ", holds") == (label in held)


def test_an_enrolled_class_is_named_with_its_distance(open_page, running):
    page = open_page("#mixed/1.0")
    page.fill("textarea.sentence", "hello")
    request, _ = asked(page)
    [answer] = over_http(running, "mixed", request)
    assert answer["who"]["label"] == "ana" == lead(page, "who")
    assert bars(page, "who") == [
        (label, written(score)) for label, score in sorted(answer["who"]["scores"].items(), key=lambda one: -one[1])
    ]


def test_a_digit_is_drawn_and_its_bars_are_https_scores(open_page, running):
    page = open_page("#digits/1.0")
    page.get_by_role("button", name="Clear").click()
    draw_seven(page)
    request, shown = asked(page)
    picture = Image.open(io.BytesIO(base64.b64decode(request["instances"][0]["image"]["b64"])))
    pixels = np.asarray(picture.convert("L"))
    assert pixels.shape == (256, 256)
    assert pixels[0, 0] == 0  # bright on dark, as the golden samples are
    assert 0.05 < (pixels > 200).mean() < 0.5
    [answer] = over_http(running, "digits", request)
    assert shown["predictions"] == [answer]
    assert lead(page, "digit") == answer["digit"]["label"]
    best = sorted(answer["digit"]["scores"].items(), key=lambda one: -one[1])[:5]
    assert bars(page, "digit") == [(label, written(score)) for label, score in best]
    assert float(lead(page, "ink")) == pytest.approx(answer["ink"]["value"], rel=1e-3)
    assert page.locator('.card[data-head="ink"] .gauge svg').get_attribute("aria-label").startswith(lead(page, "ink"))
    assert f"{len(answer['embedding']['vector'])} values" == lead(page, "embedding")


def test_an_example_is_sent_byte_by_byte_as_the_bundle_has_it(open_page, running):
    given = httpx.get(f"{running.side}/v2/models/digits", trust_env=False).json()["polyhead"]["examples"]
    page = open_page("#digits/1.0")
    assert asked(page)[0]["instances"] == [given[0]]
    page.get_by_role("button", name="Example").click()
    expect(page.locator(".form .aside").first).to_contain_text("2 of")
    request, _ = asked(page)
    assert request["instances"] == [given[1]]


def test_a_file_is_chosen_or_dropped_and_sent_as_it_is(open_page, tmp_path):
    picture = tmp_path / "nine.png"
    Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64)).save(picture)
    page = open_page("#digits/1.0")
    page.set_input_files('input[type="file"][accept*="png"]', picture)
    expect(page.locator(".source")).to_contain_text("nine.png · 64 × 64")
    request, _ = asked(page)
    assert base64.b64decode(request["instances"][0]["image"]["b64"]) == picture.read_bytes()
    page.set_input_files(
        'input[type="file"][accept*="png"]', {"name": "a.txt", "mimeType": "text/plain", "buffer": b"a"}
    )
    expect(page.locator(".fault:not([hidden])")).to_have_text("a.txt is text/plain: choose a PNG or a JPEG.")


def test_json_is_pasted_and_the_heads_that_are_wanted_answer(open_page, running):
    page = open_page("#wine/1.0")
    page.fill("textarea.code", json.dumps(ROW))
    expect(page.locator(".found")).to_have_text("now [12], fits")
    page.uncheck('.chip input[value="alcohol"]')
    request, shown = asked(page)
    assert request["instances"] == [{"measurements": ROW}]
    assert request["heads"] == ["cultivar"]
    assert shown["predictions"] == over_http(running, "wine", request)
    assert page.locator(".card").count() == 1
    assert lead(page, "cultivar") == "barolo" == shown["predictions"][0]["cultivar"]["label"]


def test_cells_of_a_sheet_become_json_when_they_are_pasted(open_page):
    page = open_page("#wine/1.0")
    page.evaluate(
        """(text) => { const area = document.querySelector("textarea.code"); area.select();
        const data = new DataTransfer(); data.setData("text/plain", text);
        area.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })); }""",
        "\t".join(map(str, ROW)),
    )
    assert json.loads(page.input_value("textarea.code")) == ROW


def test_many_rows_are_a_table_and_a_line_each(open_page, running):
    page = open_page("#wine/1.0")
    page.get_by_role("tab", name="Many rows").click()
    rows = [[value + step for value in ROW] for step in range(5)]
    page.fill('textarea[id^="rows"]', "\n".join(json.dumps({"measurements": row}) for row in rows))
    expect(page.locator(".counter")).to_have_text("5 rows")
    request, shown = asked(page)
    answers = over_http(running, "wine", request)
    assert shown["predictions"] == answers
    lines = page.locator(".scroll tbody tr")
    assert [line.locator("td").first.inner_text() for line in lines.all()] == [
        f"{one['cultivar']['label']} {written(one['cultivar']['score'])}" for one in answers
    ]
    page.get_by_role("button", name="row 3").click()
    assert float(lead(page, "alcohol")) == pytest.approx(answers[3]["alcohol"]["value"], rel=1e-3)
    page.fill('textarea[id^="rows"]', "[1]\n{")
    page.click("#send")
    expect(page.locator(".fault:not([hidden])")).to_contain_text("Line 2 is no JSON")


@pytest.mark.parametrize("form", ["runs", "png"])
def test_a_mask_has_the_pixels_of_its_runs(open_page, running, form):
    page = open_page("#mixed/1.0")
    page.click("details.options summary")
    page.select_option("details.options select", form)
    request, shown = asked(page)
    assert ("png" in shown["predictions"][0]["ground"]) == (form == "png")
    [answer] = over_http(running, "mixed", {"instances": request["instances"]})
    page.wait_for_selector("canvas.mask:not([aria-busy])")
    height, width = answer["ground"]["size"]
    labels = SPEC["heads"]["ground"]["labels"]
    indices = np.concatenate([np.full(count, index) for index, count in answer["ground"]["runs"]])
    pixels = page.evaluate(
        """() => { const { width, height } = document.querySelector("canvas.mask");
        const context = document.querySelector("canvas.mask").getContext("2d");
        return [width, height, ...context.getImageData(0, 0, width, height).data]; }"""
    )
    assert pixels[:2] == [width, height]
    colours = np.array(pixels[2:]).reshape(-1, 4)[:, :3]
    seen = {}
    for index in np.unique(indices):
        own = np.unique(colours[indices == index], axis=0)
        assert len(own) == 1
        seen[labels[index]] = tuple(own[0].tolist())
    assert len(set(seen.values())) == len(seen)
    legend = {
        item.get_attribute("data-label"): item.locator(".swatch").evaluate(
            "node => getComputedStyle(node).backgroundColor"
        )
        for item in page.locator(".legend li").all()
    }
    assert legend == {label: f"rgb({r}, {g}, {b})" for label, (r, g, b) in seen.items()}


def test_the_picture_under_a_mask_is_the_one_that_was_sent(open_page):
    page = open_page("#mixed/1.0")
    page.evaluate("window.drawn = document.querySelector('canvas.drawing')")
    sent = page.evaluate("drawn.toDataURL()")

    def answer(route):
        response = route.fetch()
        page.evaluate("drawn.getContext('2d').fillRect(0, 0, drawn.width, drawn.height)")
        assert page.evaluate("drawn.toDataURL()") != sent
        route.fulfill(response=response)

    page.route("**/predictions/**", answer)
    asked(page)
    assert page.locator(".overlay canvas").first.evaluate("canvas => canvas.toDataURL()") == sent


def test_the_model_that_is_named_last_stays_however_late_others_come(open_page):
    page = open_page("#digits/1.0")
    held = []
    page.route("**/v2/models/wine/**", lambda route: held.append(route))
    page.evaluate("location.hash = 'wine/1.0'")
    until(lambda: held, page)
    page.evaluate("location.hash = 'mixed/1.0'")
    expect(page).to_have_title("mixed 1.0 · Polyhead")
    with page.expect_response("**/v2/models/wine/**"):
        held[0].continue_()
    page.wait_for_timeout(200)
    assert page.title() == "mixed 1.0 · Polyhead"
    request, shown = asked(page)
    assert "said" in request["instances"][0]
    assert set(shown["predictions"][0]) == set(SPEC["heads"])
    page.evaluate("location.hash = 'digits/1.0'")
    expect(page).to_have_title("digits 1.0 · Polyhead")


def test_an_address_that_is_no_encoded_text_names_the_default(open_page):
    page = open_page("#100%")
    expect(page).to_have_title("digits 1.0 · Polyhead")
    expect(page.locator("#server")).to_contain_text("ready · 3 models")


def test_what_the_server_refuses_is_said_in_its_words_at_its_place(open_page, running):
    page = open_page("#mixed/1.0")
    page.fill("textarea.sentence", "room " * 60)
    request, shown = asked(page)
    refused = running.predict("mixed", request)
    assert refused.status_code == 422
    assert shown == refused.json()
    box = page.get_by_role("alert")
    expect(box).to_contain_text(f"422 {shown['type']}")
    expect(box).to_contain_text(shown["error"])
    expect(page.locator(".field .fault:not([hidden])")).to_have_text(shown["error"])
    area = page.locator("textarea.sentence")
    assert area.get_attribute("aria-invalid") == "true"
    expect(area).to_be_focused()
    page.fill("textarea.sentence", "hello")
    asked(page)
    assert area.get_attribute("aria-invalid") == "false"
    expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "wanted 12 elements, got 2"),
        (json.dumps([*ROW[:11], "a"]), 'wanted a number at [11], got "a"'),
        ("[1, 2", "This is no JSON"),
        ("", "Numbers are missing here."),
    ],
)
def test_what_cannot_fit_is_said_before_it_is_sent(open_page, text, said):
    page = open_page("#wine/1.0")
    page.fill("textarea.code", text)
    sent = []
    page.on("request", lambda request: sent.append(request.url) if "/predictions/" in request.url else None)
    page.click("#send")
    expect(page.locator(".fault:not([hidden])")).to_contain_text(said)
    expect(page.locator("textarea.code").first).to_be_focused()
    assert sent == []


def test_the_keyboard_alone_is_enough(open_page):
    page = open_page("#mixed/1.0")
    names = []
    for _ in range(40):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        if page.evaluate("document.activeElement.matches('textarea.sentence')"):
            break
    assert names[0] == "Skip to the model"
    page.keyboard.press("Control+A")
    page.keyboard.type("hello there")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".card")
    assert "words: " in page.locator('[role="status"][aria-live]').inner_text()
    page.get_by_role("tab", name="Answer", exact=True).focus()
    page.keyboard.press("ArrowRight")
    assert json.loads(page.locator("pre.json").first.inner_text())["predictions"][0]["words"]["value"] == 4
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_digit_is_drawn_by_keys(open_page):
    page = open_page("#digits/1.0")
    page.focus("canvas.drawing")
    for key in ["Delete", "ArrowUp", "ArrowUp", "ArrowUp", "Space", *["ArrowDown"] * 8, "Space"]:
        page.keyboard.press(key)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".card")
    assert lead(page, "digit") in "0123456789"
    pixels = page.evaluate(
        """() => { const canvas = document.querySelector("canvas.drawing");
        return [...canvas.getContext("2d").getImageData(128, 0, 1, 256).data].filter((_, i) => i % 4 === 0); }"""
    )
    assert 120 < sum(value > 200 for value in pixels) < 220


def test_every_change_is_asked_for_where_that_is_wished(open_page):
    page = open_page("#mixed/1.0")
    page.check("#live")
    with page.expect_response(lambda response: "/predictions/" in response.url) as caught:
        page.fill("textarea.sentence", "hello there")
    assert json.loads(caught.value.request.post_data)["instances"][0]["said"] == "hello there"


def test_the_command_asks_for_exactly_this(open_page, running):
    page = open_page("#wine/1.0")
    request, shown = asked(page)
    page.get_by_role("tab", name="curl").click()
    words = shlex.split(page.locator("pre.command").first.inner_text().replace("\\\n", " "))
    assert words[:3] == ["curl", "-s", f"{running.side}/predictions/wine/1.0"]
    body = words[words.index("-d") + 1]
    assert json.loads(body) == request
    response = httpx.post(words[2], content=body, headers={"Content-Type": "application/json"}, trust_env=False)
    assert response.json() == shown


def test_a_key_goes_with_every_request_and_into_no_command(open_page):
    page = open_page("#wine/1.0")
    page.click("#key-box summary")
    page.fill("#key", "s3cret-key")
    with page.expect_request(lambda request: request.url.endswith("/v2/models")) as caught:
        page.get_by_role("button", name="Use").click()
    assert caught.value.headers["x-api-key"] == "s3cret-key"
    with page.expect_request(lambda request: "/predictions/" in request.url) as caught:
        page.click("#send")
    assert caught.value.headers["x-api-key"] == "s3cret-key"
    assert "s3cret-key" not in page.content()
    page.get_by_role("tab", name="curl").click()
    assert "$POLYHEAD_API_KEY" in page.locator("pre.command").first.inner_text()
    assert page.evaluate("[sessionStorage.length, localStorage.length]") == [1, 0]


def test_where_there_is_no_room_it_waits_as_told_and_asks_again(open_page):
    page = open_page("#wine/1.0")
    refusals = [{"Retry-After": "1"}]

    def answer(route):
        if not refusals:
            route.continue_()
            return
        body = json.dumps({"error": "the queue of wine/1.0 is full: try again", "type": "overloaded"})
        route.fulfill(status=503, headers={**refusals.pop(), "Content-Type": "application/json"}, body=body)

    page.route("**/predictions/**", answer)
    page.click("#send")
    expect(page.get_by_role("alert")).to_contain_text("the queue of wine/1.0 is full: try again")
    expect(page.get_by_role("alert")).to_contain_text("Asking again in 1 s.")
    began = time.monotonic()
    page.wait_for_selector(".card")
    assert 0.5 < time.monotonic() - began < 5


@pytest.mark.parametrize("width", [1360, 1000])
def test_figures_that_come_late_or_not_at_all_move_nothing_that_is_drawn_on(open_page, width):
    page = open_page("#digits/1.0", viewport={"width": width, "height": 900})
    held = []
    page.route("**/metrics", lambda route: held.append(route))
    page.reload()
    canvas, workers = page.locator("canvas.drawing"), page.locator(".tile", has_text="Workers").locator(".figure")
    place = canvas.bounding_box()
    expect(workers).to_have_text("–")
    until(lambda: held, page)
    held.pop().continue_()
    expect(workers).to_have_text("1")
    assert canvas.bounding_box() == place
    for trouble in ("Stale: Service Unavailable", "No live figures: Service Unavailable"):
        until(lambda: held, page)
        held.pop().fulfill(status=503, body="")
        expect(page.locator(".strip .trouble")).to_have_text(trouble)
        assert canvas.bounding_box() == place
        page.reload()


def test_the_figures_are_those_of_the_metrics_page_and_rest_while_nobody_looks(open_page, running):
    page = open_page("#wine/1.0")
    figure = page.locator('.tile:has(.title:text-is("Requests")) .figure')
    expect(figure).to_have_text(re.compile(r"^[\d.]+/s$"), timeout=WAIT)
    for _ in range(40):
        running.predict("wine", {"instances": [ROW]})
    expect(figure).to_have_text(re.compile(r"^([1-9]|\d{2,})[\d.]*/s$"), timeout=WAIT)
    metrics = httpx.get(running.metrics, trust_env=False).text
    workers = re.search(r'polyhead_workers\{[^}]*model="wine"[^}]*\} (\d+)', metrics)[1]
    tile = page.locator(".tile", has_text="Workers")
    assert tile.locator(".figure").inner_text() == str(int(float(workers)))
    shares = page.locator('.heads tr[data-head="cultivar"] .shares li')
    assert shares.first.locator(".label").inner_text() == "barolo"
    page.evaluate(
        "Object.defineProperty(document, 'hidden', { value: true, configurable: true });"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    page.wait_for_timeout(3000)
    assert sent == []


def test_a_phone_shows_everything_without_scrolling_sideways(open_page):
    page = open_page(**PHONE)
    for model in MODELS:
        page.evaluate("(model) => { location.hash = model; }", model)
        expect(page).to_have_title(f"{model.replace('/', ' ')} · Polyhead")
        asked(page)
        page.wait_for_selector(".card")
        page.click("details.options summary")
        for tab in ("curl", "JSON", "Answer"):
            page.get_by_role("tab", name=tab, exact=True).click()
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, (model, tab)
        page.get_by_role("tab", name="Many rows").click()
        asked(page)
        page.wait_for_selector(".scroll table")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, model


def test_a_finger_draws(open_page):
    page = open_page("#digits/1.0", **PHONE)
    page.get_by_role("button", name="Clear").click()
    canvas = page.locator("canvas.drawing")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert canvas.evaluate("c => c.getContext('2d').getImageData(128, 128, 1, 1).data[0]") == 255
    expect(page.locator(".source")).to_contain_text("A drawing · sent as a PNG of 256 × 256")


ACCESSIBLE = """() => {
  const wrong = [];
  const seen = (node) => node.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })
    && !node.closest(".off-screen, .skip");
  const name = (node) => node.getAttribute("aria-label") || node.labels?.[0]?.textContent.trim() || node.alt
    || (node.matches("button, a, summary") && node.textContent.trim()) || node.title;
  const controls = "button, a, input, select, textarea, summary, canvas, [role=img], [role=group], [role=region]";
  for (const node of document.querySelectorAll(controls))
    if (!node.closest("[aria-hidden]") && !name(node)) wrong.push(`no name: ${node.outerHTML.slice(0, 120)}`);
  for (const node of document.querySelectorAll("img")) if (!node.hasAttribute("alt")) wrong.push("img without alt");
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  if (new Set(ids).size !== ids.length) wrong.push("an id stands twice");
  for (const key of ["aria-describedby", "aria-labelledby", "aria-controls", "for"])
    for (const node of document.querySelectorAll(`[${key}]`))
      for (const id of node.getAttribute(key).split(" ")) if (!document.getElementById(id)) wrong.push(`${key} ${id}`);
  if (document.querySelectorAll("h1").length !== 1 || document.querySelectorAll("main").length !== 1)
    wrong.push("one h1 and one main");
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const light = (rgb) => { const [r, g, b] = rgb.map((v) => v / 255).map((v) =>
    v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const paint = (colours) => { context.clearRect(0, 0, 1, 1);
    for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3); };
  const known = {};
  const contrastOf = (colours) => { const [under, over] = [light(paint(colours.slice(0, -1))), light(paint(colours))];
    return (Math.max(under, over) + 0.05) / (Math.min(under, over) + 0.05); };
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !seen(node) || node.closest("svg")) continue;
    const behind = [];
    for (let at = node; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
    behind.push(getComputedStyle(node).color);
    const contrast = (known[behind] ??= contrastOf(behind));
    if (contrast < 4.5) wrong.push(`contrast ${contrast.toFixed(2)}: ${node.outerHTML.slice(0, 100)}`);
  }
  return wrong;
}"""


def test_every_control_has_a_name_and_every_text_contrast(open_page):
    page = open_page(reduced_motion="reduce")
    for model in MODELS:
        page.evaluate("(model) => { location.hash = model; }", model)
        expect(page).to_have_title(f"{model.replace('/', ' ')} · Polyhead")
        asked(page)
        page.wait_for_selector(".card")
        page.click("details.options summary")
        for scheme in BACKGROUNDS:
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(ACCESSIBLE) == [], (model, scheme)


def test_the_reference_lists_every_operation_and_its_examples_work(open_page, running):
    page = open_page("docs")
    document = httpx.get(f"{running.side}/openapi.json", trust_env=False).json()
    wanted = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    shown = {
        (box.locator(".method").inner_text(), box.locator(".path").inner_text())
        for box in page.locator(".operation > summary").all()
    }
    assert shown == wanted
    for model in MODELS:
        name = model.split("/")[0]
        for path in (f"/predictions/{model}", f"/v2/models/{name}/infer"):
            box = page.locator("#post" + re.sub(r"[^\w-]+", "-", path))
            box.locator("> summary").click()
            command = box.locator("pre.command")
            words = shlex.split(command.inner_text().replace("\\\n", " "))
            body = words[words.index("-d") + 1]
            response = running.http.post(path, content=body, headers={"Content-Type": "application/json"})
            assert response.status_code == 200, response.text
    assert page.evaluate(ACCESSIBLE) == []


def test_the_reference_is_searched_unfolded_and_read_on_a_phone(open_page):
    page = open_page("docs#post-predictions-digits", **PHONE)
    box = page.locator("#post-predictions-digits")
    assert box.get_attribute("open") is not None
    box.get_by_text("instances").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.fill("#filter", "wine infer")
    assert [one.inner_text() for one in page.locator(".operation:visible .path").all()] == ["/v2/models/wine/infer"]
    expect(page.locator("#found")).to_have_text("1 found")
