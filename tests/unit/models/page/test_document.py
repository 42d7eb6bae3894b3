import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from polyhead.models.page import write_page
from polyhead.models.page.canvas import styled
from polyhead.models.page.evidence import Evidence, Outcome
from polyhead.models.page.panels import panels
from polyhead.models.run import Run
from tests.unit.models.page.runs import HEADS, spec_of, write_run

VOID = {"meta", "img"}


class Page(HTMLParser):
    """Tags, texts and images; a tag that is closed out of order fails."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.images = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attributes))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and data.strip():
            self.texts.append(data.strip())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    run = write_run(tmp_path_factory.mktemp("run"), spec_of(description="Lights & <i>doors</i>"))
    path = write_page(run)
    text = path.read_text(encoding="utf-8")
    return SimpleNamespace(run=run, path=path, text=text, page=Page(text))


def small(folder, epochs=2, **head):
    return write_run(folder, spec_of({"a": head or {"kind": "classification", "labels": ["x", "y"]}}), epochs)


def words(evidence):
    with styled():
        return [panel.words for panel in panels(evidence)]


def test_every_head_has_its_curves_and_its_verdict(written):
    assert written.path == written.run.folder / "report.html"
    alts = [image["alt"] for image in written.page.images]
    assert alts[:5] == [
        "loss of all tasks, each times its fixed weight",
        "weight of each task's loss",
        "learning rate of each part",
        "gradient of each task at the shared parameters",
        "cosine between tasks' gradients, mean over epochs",
    ]
    for head in HEADS:
        assert f"{head}: losses and metrics by epoch" in alts
    verdicts = [alt.split(": ")[1] for alt in alts[5:] if not alt.endswith("by epoch")]
    for said, pattern in zip(
        verdicts,
        [
            r"\d+ of \d+ test rows right; confusion of labels",
            "labels on 24 test rows",
            r"mean absolute error [\d.]+ <°C>, 23 test rows",
            "spans of 24 test texts",
            r"vectors by class, \d+ test rows",
            r"vectors by class, \d+ test rows",
            r"mean intersection over union 0\.\d+",
            "test images, true and predicted masks",
        ],
        strict=True,
    ):
        assert re.fullmatch(pattern, said)


def test_the_page_needs_no_other_file_and_no_network(written):
    assert "://" not in re.sub(r'src="[^"]*"', "", written.text)
    assert not {"script", "link", "iframe", "object"} & set(written.page.tags)
    for image in written.page.images:
        assert image["src"].startswith("data:image/png;base64,")
        with Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2], validate=True))) as drawn:
            assert drawn.size == (int(image["width"]), int(image["height"]))
    assert "default-src 'none'" in written.text
    assert "url(" not in written.text


def test_nothing_from_a_spec_is_taken_for_markup(written):
    for hostile in ("<script", "<b>", "<i>", "<°C>"):
        assert hostile not in written.text
    assert "Lights & <i>doors</i>" in written.page.texts
    assert "regression. set <script>alert(1)</script>" in written.page.texts
    assert "0.9375 <°C>" in written.page.texts


def test_the_tables_hold_record_and_recipe(written):
    texts = written.page.texts
    for expected in ("22\u202f713\u202f216", "12.5", "validation loss", "1.25", "exact match", "loss_weights / intent"):
        assert expected in texts
    assert texts[texts.index("loss_weights / intent") + 1] == "2.5"
    assert texts[texts.index("heads / slots") + 1] == "99"
    assert texts[texts.index("gradients") + 1] == "sum"
    assert texts[texts.index("freeze_trunk") + 1] == "no"


def test_the_page_fits_a_phone(written):
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in written.text
    assert "img { display: block; width: 100%;" in written.text


def test_files_have_a_size_that_can_be_mailed(written):
    assert written.path.stat().st_size < 2_500_000
    assert (written.run.folder / "report.png").stat().st_size < 2_500_000


def test_the_sheet_holds_the_same_plots(written):
    with Image.open(written.run.folder / "report.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    rows = ["\n".join(map(str, pixels[:, column].tolist())) for column in (24 + 300, 24 + 768 + 24 + 300)]
    for image in written.page.images:
        with Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))) as drawn:
            column = np.asarray(drawn.convert("RGB"))[:, 300]
        assert any("\n".join(map(str, column.tolist())) in row for row in rows), image["alt"]


def test_the_same_run_gives_the_same_bytes_and_leaves_no_setting_behind(tmp_path):
    run, before = small(tmp_path), dict(mpl.rcParams)
    first = [write_page(run).read_bytes(), (tmp_path / "report.png").read_bytes()]
    assert [write_page(run).read_bytes(), (tmp_path / "report.png").read_bytes()] == first
    assert dict(mpl.rcParams) == before


def test_a_run_with_nothing_but_its_record_still_has_a_page(tmp_path):
    run = small(tmp_path)
    for path in (run.history, run.predictions, run.samples):
        path.unlink()
    page = Page(write_page(run).read_text(encoding="utf-8"))
    assert page.images == []
    assert "0.9375" in page.texts
    assert (tmp_path / "report.png").is_file()


def test_without_gradients_there_is_no_conflict_and_without_validation_no_metric(tmp_path):
    run = small(tmp_path)
    run.history.write_text(json.dumps([{"epoch": 1, "train": {"a": 1.0}}]))
    run.predictions.unlink()
    assert words(Evidence.of(run)) == ["a: losses and metrics by epoch"]


def test_a_single_task_has_no_conflict_matrix(tmp_path):
    assert not any("cosine" in said for said in words(Evidence.of(small(tmp_path, epochs=1))))


@pytest.mark.parametrize(
    ("head", "outputs", "targets"),
    [
        ({"kind": "classification", "labels": ["x", "y"]}, np.zeros((3, 2)), np.full(3, -1)),
        ({"kind": "regression"}, np.zeros((3, 1)), np.full((3, 1), np.nan)),
        ({"kind": "embedding", "dim": 2}, np.zeros((3, 2)), np.full(3, -1)),
        ({"kind": "oneshot", "dim": 2}, np.full((3, 2), np.nan), np.arange(3)),
        ({"kind": "segmentation", "labels": ["x", "y"]}, np.zeros((2, 2, 6, 8)), np.full((2, 6, 8), -1)),
    ],
)
def test_a_head_without_a_known_target_has_no_verdict(tmp_path, head, outputs, targets):
    evidence = Evidence.of(small(tmp_path, epochs=1, **head))
    unknown = Evidence(evidence.spec, evidence.record, [], {"a": Outcome(outputs, targets)}, None)
    assert words(unknown) == []


def test_the_error_of_a_regression_is_over_known_values_alone(tmp_path):
    evidence = Evidence.of(small(tmp_path, kind="regression", unit="m", dim=2))
    outcome = Outcome(np.array([[1.0, 5.0], [2.0, 9.0]]), np.array([[2.0, np.nan], [2.0, 7.0]]))
    shown = Evidence(evidence.spec, evidence.record, [], {"a": outcome}, None)
    assert words(shown) == ["a: mean absolute error 1 m, 2 test rows"]


def test_a_scatter_shows_some_of_many_rows_and_says_so(tmp_path):
    evidence = Evidence.of(small(tmp_path, kind="embedding", dim=3))
    vectors = np.random.default_rng(0).normal(size=(5000, 3))
    shown = Evidence(evidence.spec, evidence.record, [], {"a": Outcome(vectors, np.arange(5000) % 3)}, None)
    assert words(shown) == ["a: vectors by class, 2000 of 5000 test rows"]


def test_a_real_run_has_a_page(digits_run, tmp_path):
    folder = shutil.copytree(digits_run, tmp_path / "run")
    page = Page(write_page(Run.open(folder)).read_text(encoding="utf-8"))
    alts = [image["alt"] for image in page.images]
    rows = len(Evidence.of(Run.open(folder)).outcomes["digit"].targets)
    assert any(re.fullmatch(rf"digit: \d+ of {rows} test rows right; confusion of labels", alt) for alt in alts)
    assert sum(alt.endswith("losses and metrics by epoch") for alt in alts) == 4
