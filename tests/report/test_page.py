"""report.html: one file, nothing from elsewhere, nothing that its contents could break."""

import json
import re
import sys
from html.parser import HTMLParser
from time import perf_counter

import numpy as np
import pytest

from functorch_kit.report import MetricsLog, write_page

VOID = {"meta", "img", "br", "hr", "input", "link"}
EVIL = "<script>alert('x')</script>\"><img src=http://example.org/x>&"
REPORT = {
    "name": "train_step", "lower_seconds": 0.2, "compile_seconds": 1.24, "flops": 412_345_678,
    "bytes_accessed": 92_345_678, "argument_bytes": 5_120_000, "output_bytes": 5_110_000,
    "temp_bytes": 22_334_455, "peak_bytes": 27_400_000, "donated": ["params/w", "params/b"],
    "not_donated": ["step"], "platform": "cpu", "from_cache": False,
}  # fmt: skip


class Page(HTMLParser):
    """The page as a list of tags, with the checks that a browser does not make."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.texts, self.text = [], [], {}, []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)
            self.texts.setdefault(self.open[-1], []).append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def charts(self):
        return [each for each in self.named("svg") if each.get("role") == "img"]

    @property
    def headings(self):
        return self.texts.get("h2", [])

    @property
    def words(self):
        return " ".join(self.text)


def _write_run(folder, steps=400, every=20, accuracy=True, name="digits-cnn"):
    run = folder / name
    run.mkdir()
    noise = np.random.default_rng(0)
    with MetricsLog(run / "metrics.jsonl") as log:
        for step in range(1, steps + 1):
            loss = 2.3 * np.exp(-5 * step / steps) + 0.1 * noise.random()
            more = {"accuracy": 1 - loss / 3} if accuracy else {}
            log.write({"step": step, "split": "train", "loss": loss, **more})
            if step % every == 0:
                log.write({"step": step, "split": "validation", "loss": loss + 0.02, **more})
    summary = {
        "status": "finished", "steps": steps, "seconds": 4.0, "best_step": steps,
        "validation_loss": 0.07, "test_loss": 0.0561,
    }  # fmt: skip
    if accuracy:
        summary |= {"validation_accuracy": 0.9889, "test_accuracy": 0.98611}
    program = {
        "form": "chunk", "form_reason": "no convolution in it", "steps_per_dispatch": 100,
        "input_wait_seconds": 1.0, "compute_seconds": 3.0,
        "programs": {"train_step": REPORT, "eval_step": {**REPORT, "name": "eval_step"}},
    }  # fmt: skip
    environment = {
        "python": "3.11.7", "versions": {"jax": "0.10.2"}, "xla_flags": "--xla_x=1",
        "devices": {"platform": "cpu", "kind": "cpu", "count": 4},
        "cpu": {"model": "M", "cores": 2},
        "git": {"revision": "0123456789abcdef", "dirty": True},
    }  # fmt: skip
    for file, fields in (
        ("summary", summary),
        ("program", program),
        ("environment", environment),
    ):
        (run / f"{file}.json").write_text(json.dumps(fields))
    (run / "config.yaml").write_text("model:\n  name: cnn\n")
    return run


def _mistakes(count=12, shape=(8, 8)):
    images = np.random.default_rng(0).random((count, *shape))
    return [{"image": image, "label": 3, "predicted": 8, "probability": 0.995} for image in images]


def _page(run, **material):
    path = write_page(run, **material)
    assert path == run / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_a_whole_run_is_on_the_page(tmp_path):
    matrix = np.diag([30] * 10)
    matrix[3, 8] = 2
    page = _page(_write_run(tmp_path), confusion=matrix, mistakes=_mistakes(),
                 class_names=[f"digit {i}" for i in range(10)])  # fmt: skip
    assert page.headings == [
        "Curves", "Confusion matrix", "Worst mistakes", "Program", "Where the time went",
        "Environment", "Configuration",
    ]  # fmt: skip
    assert page.texts["h1"] == ["digits-cnn"]
    assert "98.61 %" in page.texts["b"]
    for text in (
        "finished after 400 steps in 4.00 s", "98.89 %", "0.0561", "412 M", "27.4 MB", "2 of 3",
        "train_step does not reuse the buffers of step.",
        "Form: chunk, 100 steps at a time at most.",
        "No convolution in it.", "waiting for input 1.00 s (25.0 %)", "0.10.2", "4 × cpu",
        "0123456789ab, with changes", "--xla_x=1", "name: cnn", "302 examples, 2 of them wrong",
        "digit 3 → ", "digit 8", "99.5 % sure", "20 evaluations",
    ):  # fmt: skip
        assert text in page.words, text
    assert len(page.charts) == 2
    assert len(page.named("img")) == 12


def test_the_page_loads_nothing_from_anywhere(tmp_path):
    run = _write_run(tmp_path)
    page = _page(run, confusion=np.eye(3), mistakes=_mistakes())
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "srcset", "href", "xlink:href", "action", "data", "poster"):
                assert value.startswith(("data:image/png;base64,", "#")), (tag, name, value)
    html = (run / "report.html").read_text()
    assert not re.search(r"https?:|//[a-z]|@import|@font-face", html)
    assert all(url.startswith("#") for url in re.findall(r"url\(([^)]*)\)", html))
    policy = next(m for m in page.named("meta") if "http-equiv" in m)["content"]
    assert "default-src 'none'" in policy


def test_what_drawings_refer_to_is_there_and_unique(tmp_path):
    page = _page(_write_run(tmp_path))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    html = (tmp_path / "digits-cnn" / "report.html").read_text()
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', html))
    assert used == set(ids)


def test_nothing_that_a_run_contains_becomes_markup(tmp_path):
    run = _write_run(tmp_path, name="run <b>&")
    (run / "config.yaml").write_text(f"note: {EVIL}\n")
    (run / "environment.json").write_text(
        json.dumps(
            {"python": EVIL, "versions": {EVIL: EVIL}, "git": {"revision": EVIL}, EVIL: EVIL}
        )
    )
    (run / "summary.json").write_text(
        json.dumps({"status": EVIL, "steps": 3, f"test_{EVIL}": 1.0, "test_loss": 0.5})
    )
    (run / "program.json").write_text(
        json.dumps(
            {"form": EVIL, "form_reason": EVIL,
             "programs": {EVIL: {**REPORT, "name": EVIL, "not_donated": [EVIL]}}}
        )
    )  # fmt: skip
    with MetricsLog(run / "metrics.jsonl") as log:
        log.write({"step": 1, "split": EVIL, EVIL: 0.5, "loss": 0.5})
    mistakes = [{**_mistakes(1)[0], "label": EVIL, "predicted": 1}]
    page = _page(run, confusion=[[3, 1], [0, 2]], class_names=[EVIL, EVIL], mistakes=mistakes)
    assert not page.named("script")
    assert all(image["src"].startswith("data:") for image in page.named("img"))
    assert page.words.count("<script>alert('x')</script>") >= 8
    assert page.texts["h1"] == ["run <b>&"]


@pytest.mark.parametrize("missing", ["summary.json", "metrics.jsonl", "program.json",
                                     "environment.json", "config.yaml"])  # fmt: skip
def test_a_missing_file_is_a_missing_section(tmp_path, missing):
    run = _write_run(tmp_path)
    complete = _page(run)
    (run / missing).unlink()
    page = _page(run)
    gone = {
        "metrics.jsonl": {"Curves"},
        "program.json": {"Program", "Where the time went"},
        "environment.json": {"Environment"},
        "config.yaml": {"Configuration"},
    }
    assert set(complete.headings) - set(page.headings) == gone.get(missing, set())


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "null", '"text"', "\x00", '{"programs": 3}',
                                     '{"programs": {"train_step": 3}}'])  # fmt: skip
def test_a_damaged_file_is_a_missing_section(tmp_path, content):
    run = _write_run(tmp_path)
    for name in ("summary.json", "program.json", "environment.json"):
        (run / name).write_text(content)
    page = _page(run)
    assert "Configuration" in page.headings
    assert "Program" not in page.headings


def test_an_empty_folder_still_makes_a_page(tmp_path):
    page = _page(tmp_path)
    assert page.headings == []
    assert page.texts["h1"] == [tmp_path.name]


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (1, 2), (30, 30), (2, 1)])
def test_a_run_of_few_rows_is_drawn(tmp_path, steps, every):
    page = _page(_write_run(tmp_path, steps, every))
    assert len(page.charts) == 2


def test_a_run_whose_numbers_all_broke_is_drawn(tmp_path):
    run = _write_run(tmp_path)
    with MetricsLog(run / "metrics.jsonl") as log:
        log.write({"step": 1, "split": "train", "loss": float("nan")})
        log.write({"step": 1, "split": "validation", "loss": float("inf")})
    (run / "summary.json").write_text(json.dumps({"test_loss": "NaN", "best_step": None}))
    assert "no finite value" in _page(run).words


def test_a_regression_run_leads_with_its_loss(tmp_path):
    page = _page(_write_run(tmp_path, accuracy=False))
    assert page.texts["b"] == ["0.0561"]
    assert len(page.charts) == 1
    assert "accuracy" not in page.words


def test_many_metrics_are_named_rather_than_drawn(tmp_path):
    run = _write_run(tmp_path)
    with MetricsLog(run / "metrics.jsonl") as log:
        log.write({"step": 1, "split": "train", **{f"metric_{i}": i for i in range(8)}})
    page = _page(run)
    assert len(page.charts) == 6
    assert "Not drawn: metric 6, metric 7." in page.words


def test_the_matrix_tells_right_from_wrong_without_colour(tmp_path):
    page = _page(tmp_path, confusion=[[9, 1], [0, 5]], class_names=np.array(["cat", "dog"]))
    cells = [attributes for attributes in page.named("td") if "title" in attributes]
    assert [(cell["class"].split()[0], cell["title"]) for cell in cells] == [
        ("right", "cat: 9 right"), ("wrong", "cat taken for dog: 1"), ("right", "dog: 5 right"),
    ]  # fmt: skip
    assert "15 examples, 1 of them wrong" in page.words
    assert page.texts["td"] == ["9", "1", "90.0", "0", "5", "100.0"]


def test_a_class_without_examples_has_no_share(tmp_path):
    page = _page(tmp_path, confusion=np.array([[2, 0], [0, 0]]))
    assert page.texts["td"] == ["2", "0", "100.0", "0", "0", "-"]
    assert page.texts["th"] == ["0", "1", "%", "0", "1"]


def test_many_classes_are_shown_by_what_is_confused_most(tmp_path):
    matrix = 50 * np.eye(300, dtype=int)
    matrix[7, 9] = 12
    page = _page(tmp_path, confusion=matrix)
    assert page.headings == ["Most confused"]
    assert page.texts["td"] == ["9", "12"]


@pytest.mark.parametrize("matrix", [np.ones(3), np.ones((2, 3)), np.ones((0, 0)), np.float32(3)])
def test_what_is_no_matrix_is_left_out(tmp_path, matrix):
    assert _page(tmp_path, confusion=matrix).headings == []


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (32, 32, 3), (300, 200, 3)])
def test_mistakes_are_small_pictures(tmp_path, shape):
    page = _page(tmp_path, mistakes=_mistakes(30, shape))
    assert len(page.named("img")) == 24
    assert (tmp_path / "report.html").stat().st_size < 700_000


def test_a_mistake_that_is_no_picture_is_told_in_words(tmp_path):
    page = _page(tmp_path, mistakes=[{"image": np.ones(7), "label": 1, "predicted": 2}, {}])
    assert not page.named("img")
    assert page.texts["li"] == ["1 → ", "? → "]


def test_a_page_needs_no_library_for_pictures(tmp_path, monkeypatch):
    run = _write_run(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = _page(run, mistakes=_mistakes())
    assert len(page.charts) == 2
    assert len(page.named("img")) == 12


def test_both_colour_schemes_and_phones_are_provided_for(tmp_path):
    write_page(_write_run(tmp_path))
    html = (tmp_path / "digits-cnn" / "report.html").read_text()
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in html
    # A drawing has no colour of its own: all come from the scheme.
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}", drawings)


def test_the_same_run_gives_the_same_page(tmp_path):
    run = _write_run(tmp_path)
    first, second = (
        write_page(run, confusion=np.eye(3), mistakes=_mistakes()).read_bytes() for _ in range(2)
    )
    assert first == second
    assert not list(run.glob("*.part"))


def test_the_page_of_a_typical_run_is_small_and_quick(tmp_path):
    run = _write_run(tmp_path)
    seconds = []
    for _ in range(3):
        start = perf_counter()
        page = write_page(run, confusion=np.eye(10) * 30, mistakes=_mistakes())
        seconds.append(perf_counter() - start)
        assert page.stat().st_size < 150_000
    assert min(seconds) < 1.0
