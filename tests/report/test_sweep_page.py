"""sweep.html: one file that loads nothing, says what it leaves out, and survives its contents."""

import math
import re
from time import perf_counter
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functorch_kit.report import write_sweep
from functorch_kit.report.sweep_theme import SWEEP_CSS

EVIL = "<script>alert('x')</script>\"><img src=http://example.org/x>&]]>"


def _points(text):
    return [tuple(map(int, point.split(","))) for point in text.split()]


class Page:
    """The page, which must be well-formed to the letter: browsers forgive, XML does not."""

    def __init__(self, path):
        self.html = path.read_text(encoding="utf-8")
        body = self.html[self.html.index("<main>") : self.html.index("</main>") + 7]
        self.main = ElementTree.fromstring(body)

    def all(self, tag, kind=""):
        found = self.main.iter(tag)
        return [each for each in found if not kind or kind in each.get("class", "").split()]

    def texts(self, tag, kind=""):
        return [" ".join("".join(each.itertext()).split()) for each in self.all(tag, kind)]

    @property
    def words(self):
        return " ".join("".join(self.main.itertext()).split())

    @property
    def lines(self):
        """The lines of the parallel coordinates: classes and points, each from 0 to 1000."""
        chart = next(iter(self.all("div", "parallel")), ())
        return [
            (line.get("class"), _points(line.attrib["points"]))
            for part in chart
            for line in part.iter("polyline")
        ]

    def rows(self, table):
        cells = [list(row) for row in table.iter("tr")]
        return [[" ".join("".join(c.itertext()).split()) for c in row] for row in cells]


def job(number, value, status="finished", metric="accuracy", **settings: Any) -> dict[str, Any]:
    summary = {"status": status, "steps": 40, "best_step": 40, "seconds": 0.5}
    if value is not None:
        summary |= {f"validation_{metric}": value, f"test_{metric}": value}
    named = {name.replace("__", "."): each for name, each in settings.items()}
    return {
        "number": number, "folder": str(number), "settings": named, "status": status,
        "summary": summary,
    }  # fmt: skip


def sweep(*jobs, metric="accuracy", mode="max", **more):
    fields = {"metric": metric, "mode": mode, "seconds": 12.3, "compiles": 2, "plan": ["a plan"]}
    return {**fields, "jobs": list(jobs), **more}


def history(*values, split="validation", name="accuracy", every=10):
    return [{"step": every * i, "split": split, name: v} for i, v in enumerate(values, 1)]


def rates():
    """Two rates, two seeds, one job diverged."""
    return sweep(
        job(0, 0.6, optimizer__learning_rate=0.001, seed=0),
        job(1, 0.8, optimizer__learning_rate=0.001, seed=1),
        job(2, 0.9, optimizer__learning_rate=0.01, seed=0),
        job(3, 0.95, "diverged", optimizer__learning_rate=0.01, seed=1),
    )


def written(folder, fields, histories=None):
    path = write_sweep(folder, fields, histories or {})
    assert path == folder / "sweep.html"
    return Page(path)


def test_a_whole_sweep_is_on_the_page(tmp_path):
    histories = {n: history(0.1, 0.2 + n / 10) for n in range(4)}
    page = written(tmp_path / "rates", rates(), histories)
    assert page.texts("h1") == ["rates"]
    assert page.texts("h2") == [
        "Best job", "Settings and results", "Jobs", "Learning curves", "Effect of each setting",
        "Programs",
    ]  # fmt: skip
    assert page.texts("pre") == ["optimizer.learning_rate=0.01 seed=0", "a plan"]
    for text in (
        "3 finished, 1 diverged", "90.00 % validation accuracy of job 2, the best", "12.3 s",
        "programs compiled 2", "settings, without seeds 2", "worst 60.00 %", "best 90.00 %",
        "Dashed lines are jobs that diverged or gave no number.",
    ):  # fmt: skip
        assert text in page.words.replace("compiled2", "compiled 2").replace(
            "seeds2", "seeds 2"
        ).replace("%validation", "% validation"), text


def test_the_page_loads_nothing_and_runs_nothing(tmp_path):
    page = written(tmp_path, rates(), {0: history(0.1, 0.2)})
    for each in page.main.iter():
        assert each.tag not in (
            "script",
            "link",
            "iframe",
            "object",
            "embed",
            "base",
            "form",
            "img",
        )
        for name, value in each.attrib.items():
            assert not name.startswith("on"), (each.tag, name)
            if name in ("src", "href", "action", "data", "poster"):
                assert re.fullmatch(r"\./\d/report\.html", value), value
    assert not re.search(r"https?:|//[a-z]|@import|@font-face|url\(", page.html)
    assert "default-src 'none'" in page.html


def test_nothing_that_a_sweep_contains_becomes_markup(tmp_path):
    jobs = [
        {
            "number": number, "folder": EVIL, "status": status,
            "settings": {EVIL: EVIL, f"model.{EVIL}": [EVIL, number], "seed": number},
            "summary": {f"validation_{EVIL}": 0.5, EVIL: EVIL, f"test_{EVIL}": 1.0, "trend": EVIL},
        }
        for number, status in enumerate(["finished", "finished", EVIL])
    ]  # fmt: skip
    histories = {n: history(0.5, 0.6, name=EVIL) for n in range(3)}
    page = written(tmp_path / "a <b>&", sweep(*jobs, metric=EVIL, plan=[EVIL]), histories)
    assert {each.tag for each in page.main.iter()} & {"script", "img"} == set()
    assert "<script" not in page.html
    assert page.words.count("<script>alert('x')</script>") >= 8
    assert page.texts("h1") == ["a <b>&"]


@pytest.mark.parametrize("folder", ["javascript:alert(1)", "//example.org", "http://example.org"])
def test_a_link_never_leaves_the_folder(tmp_path, folder):
    page = written(tmp_path, sweep({**job(0, 0.5), "folder": folder}))
    assert page.all("a")
    for link in page.all("a"):
        assert link.attrib["href"].startswith("./")
        assert ":" not in link.attrib["href"]


def test_each_job_that_ended_well_has_a_link_and_others_where_there_is_a_page(tmp_path):
    (tmp_path / "4").mkdir()
    (tmp_path / "4" / "report.html").write_text("")
    states = ["finished", "stopped early", "out of time", "diverged", "diverged", "waiting"]
    page = written(tmp_path, sweep(*(job(n, 0.5, s, seed=n) for n, s in enumerate(states))))
    links = {link.get("href") for link in page.all("a")}
    assert links == {f"./{number}/report.html" for number in (0, 1, 2, 4)}


def test_the_best_stand_first_and_what_has_no_result_at_the_end_with_its_status(tmp_path):
    states = {3: "diverged", 5: "waiting", 4: "interrupted"}
    values = [0.5, 0.9, 0.7, 0.99, 0.98, None, math.nan]
    fields = sweep(*(job(n, v, states.get(n, "finished"), seed=n) for n, v in enumerate(values)))
    page = written(tmp_path, fields)
    ranked, broken = (page.rows(table)[1:] for table in page.all("table", "jobs"))
    assert [row[:3] for row in ranked] == [
        ["1", "1", "90.00 %"], ["2", "2", "70.00 %"], ["3", "0", "50.00 %"],
    ]  # fmt: skip
    assert [row[:2] for row in broken] == [
        ["3", "diverged"], ["6", "finished"], ["4", "interrupted"], ["5", "waiting"],
    ]  # fmt: skip


def test_a_loss_is_best_where_it_is_smallest(tmp_path):
    jobs = (job(n, v, metric="loss", seed=n) for n, v in enumerate([0.5, 0.125, 0.7]))
    page = written(tmp_path, sweep(*jobs, metric="loss", mode="min"))
    assert page.texts("pre")[0] == "seed=1"
    assert "0.1250" in page.texts("b")
    heights = {points[0][1]: points[-1][1] for _, points in page.lines}
    assert heights == {1000: 652, 500: 0, 0: 1000}  # of 0.5, 0.125 and 0.7: the best at the top


def test_jobs_are_lines_whose_points_lie_where_the_settings_say(tmp_path):
    page = written(tmp_path, sweep(
        job(0, 0.0, rate=1e-4, width="wide"), job(1, 1.0, rate=1e-3, width="narrow"),
        job(2, 0.25, rate=1e-2, width="middle"),
    ))  # fmt: skip
    assert page.lines == [  # the worst first, so that the best lies on top
        ("s0", [(0, 1000), (500, 0), (1000, 1000)]),
        ("s3", [(0, 0), (500, 1000), (1000, 750)]),
        ("s6 top", [(0, 500), (500, 500), (1000, 0)]),
    ]
    assert page.texts("span", "before") == ["0.0001", "0.001", "0.01"]


def test_a_job_without_a_number_is_a_dashed_line_that_ends_below_the_others(tmp_path):
    page = written(tmp_path, rates())
    gone = [points for kind, points in page.lines if kind == "gone"]
    assert len(gone) == 1
    assert gone[0][-1][1] == 1000
    assert min(points[-1][1] for kind, points in page.lines if kind != "gone") == 0
    assert max(points[-1][1] for kind, points in page.lines if kind != "gone") == 870
    assert "no value" in page.texts("span", "after")


def test_lines_through_one_place_lie_side_by_side(tmp_path):
    page = written(tmp_path, sweep(*(job(n, n / 9, a=n % 2) for n in range(10))))
    starts = [points[0][1] for _, points in page.lines]
    assert len(set(starts)) == 10
    assert all(min(abs(y), abs(1000 - y)) <= 35 for y in starts)


def test_of_a_thousand_jobs_some_are_drawn_and_the_page_says_so(tmp_path):
    jobs, histories = [], {}
    for n in range(1000):
        settings: Any = {f"model__setting_{i}": (n * (i + 3)) % 997 / 31 for i in range(8)}
        value, status = 0.5 + n / 2500, "diverged" if n % 20 == 0 else "finished"
        jobs.append(job(n, value, status, seed=n, **settings))
        histories[n] = history(*(value * (1 - math.exp(-s / 50)) for s in range(300)))
    start = perf_counter()
    page = written(tmp_path, sweep(*jobs), histories)
    seconds = perf_counter() - start
    assert len(page.html.encode()) < 1_000_000
    assert seconds < 10.0
    assert len(page.lines) == 350
    best = [n for n in range(999, 900, -1) if n % 20][:50]
    titles = [title.text or "" for title in page.main.iter("title")]
    assert [title.split()[1] for title in titles[:-51:-1]] == [f"{n}:" for n in best]
    for text in (
        "350 of 1,000 jobs are drawn: the best 50", "280 more; the last 650 are in sweep.csv",
        "50 without a result", "60 more in grey", "931 curves are not drawn",
    ):  # fmt: skip
        assert text in page.words, text
    assert (tmp_path / "sweep.csv").read_text().count("\n") == 1001


def test_many_settings_are_shown_in_part_and_the_page_says_so(tmp_path):
    given: Any = [{f"s{i}": n * i for i in range(60)} for n in range(40)]
    jobs = (job(n, n / 60, **settings) for n, settings in enumerate(given))
    page = written(tmp_path, sweep(*jobs))
    assert all(len(points) == 25 for _, points in page.lines)
    assert "The first 24 of 60 settings have an axis." in page.words
    assert "36 more settings are in sweep.csv." in page.words
    assert len(page.html.encode()) < 1_000_000


def test_one_job_makes_a_page(tmp_path):
    page = written(tmp_path, sweep(job(0, 0.5)), {0: history(0.25, 0.5)})
    assert "The jobs do not differ in their settings." in page.words
    assert page.lines == [("s6 top", [(0, 500), (1000, 500)])]
    assert page.texts("h2") == [
        "Best job", "Settings and results", "Jobs", "Learning curves", "Programs",
    ]  # fmt: skip


@pytest.mark.parametrize("fields", [{}, {"jobs": []}, {"metric": "loss", "jobs": [], "plan": None}])
def test_a_sweep_of_nothing_makes_a_page(tmp_path, fields):
    page = written(tmp_path / "none", fields)
    assert page.texts("h1") == ["none"]
    assert "No job has come to its end with a training loss." in page.words


@pytest.mark.parametrize("status", ["diverged", "waiting", "interrupted"])
def test_a_sweep_without_a_result_makes_a_page(tmp_path, status):
    page = written(tmp_path, sweep(*(job(n, math.nan, status, seed=n) for n in range(3))))
    assert f"3 {status}" in page.words
    assert "No job has come to its end with a validation accuracy." in page.words
    assert len(page.lines) == (3 if status == "diverged" else 0)
    assert "Effect of each setting" not in page.texts("h2")


def test_without_a_validation_part_the_last_training_loss_is_compared(tmp_path):
    jobs = [{**job(n, None), "settings": {"seed": n}} for n in range(3)]
    histories = {
        n: history(2.0, last, split="train", name="loss") for n, last in enumerate([0.5, 0.25, 1.0])
    }
    page = written(tmp_path, sweep(*jobs), histories)
    assert page.texts("pre")[0] == "seed=1"
    assert "0.2500training loss of job 1, the best" in page.words
    assert (
        "No job has a validation metric: they are compared by the training loss that was"
        " logged last." in page.words
    )


def test_numbers_at_the_ends_of_what_a_float_holds_are_drawn(tmp_path):
    values = [1e308, -1e308, 5e-324, 0.0, 1.7e308, 1.0]
    jobs = (job(n, v, metric="loss", a=v, b=abs(v)) for n, v in enumerate(values))
    histories = {n: history(v, -v, name="loss") for n, v in enumerate(values)}
    page = written(tmp_path, sweep(*jobs, metric="loss", mode="min"), histories)
    assert len(page.lines) == 6
    assert "nan" not in page.html


def test_long_text_stays_out_of_the_way(tmp_path):
    jobs = [
        job(n, 0.5 + n / 9, note="x" * 100_000 + str(n), path="a\n\x00\ud800") for n in range(3)
    ]
    page = written(tmp_path, sweep(*jobs, plan=["y" * 100_000]))
    assert len(page.html) < 60_000
    assert "Its settings are too long, or too odd, to stand here." in page.words
    assert (tmp_path / "sweep.csv").stat().st_size > 300_000


def test_the_same_sweep_gives_the_same_files(tmp_path):
    files = []
    for _ in range(2):
        written(tmp_path, rates(), {0: history(0.1, 0.2)})
        files.append([path.read_bytes() for path in sorted(tmp_path.iterdir())])
    assert files[0] == files[1]
    assert len(files[0]) == 2  # and no draft


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_shades_differ_in_lightness_alone_already(scheme):
    found = re.findall(r"--s(\d): #([0-9a-f]{6});", SWEEP_CSS)
    shades = {int(n): code for n, code in found[7 * scheme : 7 * scheme + 7]}

    def lightness(code):
        parts = (int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        luminance = sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
        return 116 * luminance ** (1 / 3) - 16  # CIE L*

    steps = [lightness(shades[n + 1]) - lightness(shades[n]) for n in range(6)]
    sign = 1 if scheme else -1
    assert all(sign * step >= 4 for step in steps), steps


def test_drawings_take_their_colours_from_the_scheme(tmp_path):
    page = written(tmp_path, rates(), {0: history(0.1, 0.2)})
    assert not re.search(r"#[0-9a-f]{6}", page.html[page.html.index("<main>") :])
    used = set(re.findall(r"var\(--(\w+)\)", page.html))
    for name in used - {"n", "axes", "a", "c"}:
        assert len(re.findall(rf"--{name}:", page.html)) == 2, name


texts = st.text(st.characters(), max_size=30)
plain = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), texts, st.lists(st.integers(), max_size=3)
)
anything = st.lists(
    st.tuples(st.dictionaries(texts, plain, max_size=4), st.floats() | st.none(),
              st.sampled_from(["finished", "diverged", "waiting", "out of time"])),
    max_size=6,
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(anything, st.sampled_from(["min", "max"]), texts)
def test_any_sweep_makes_a_well_formed_page(tmp_path_factory, jobs, mode, name):
    folder = tmp_path_factory.mktemp("any")
    made = [
        {**job(n, value, status, metric=name), "settings": settings}
        for n, (settings, value, status) in enumerate(jobs)
    ]
    histories = {n: history(value, 1.0, name=name) for n, (_, value, _) in enumerate(jobs)}
    written(folder, sweep(*made, metric=name, mode=mode), histories)
