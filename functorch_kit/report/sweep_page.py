"""``sweep.html`` and ``sweep.csv``: a whole sweep on one page that loads nothing from anywhere."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from functorch_kit.report.labels import shown
from functorch_kit.report.markup import document, escape, facts, section
from functorch_kit.report.quantities import duration, metric, words
from functorch_kit.report.sweep_axes import parallel_coordinates
from functorch_kit.report.sweep_curves import learning_curves
from functorch_kit.report.sweep_effects import marginal_effects
from functorch_kit.report.sweep_jobs import Job, Rows, Sweep, over_seeds, read_sweep
from functorch_kit.report.sweep_overrides import one_line, override_words
from functorch_kit.report.sweep_table import best_table, csv_text, page_of
from functorch_kit.report.sweep_theme import SWEEP_CSS

_LONGEST_LINE = 4000
_NOT_RESULTS = ("steps", "seconds", "trend")


def write_sweep(
    folder: str | os.PathLike[str], sweep: Mapping[str, Any], histories: Mapping[int, Rows]
) -> Path:
    """Write ``sweep.csv`` and ``sweep.html``.

    The jobs that finished, stopped early, were pruned or ran out of time are compared as
    ``read_sweep`` says. Of a large sweep the page draws some of the lines and says so; the CSV file
    holds everything.

    Args:
        folder: of the sweep; the jobs' run folders lie in it. Made if it is not there.
        sweep: the fields of ``sweep.json``: ``metric``, ``mode``, ``seconds``, ``compiles``,
            ``plan``, and ``jobs``, each with ``number``, ``folder``, ``settings`` (those that
            differ, by dotted name), ``status`` and ``summary``.
        histories: number of a job -> the rows of its ``metrics.jsonl``.

    Returns:
        The path of the page.

    Example:
        >>> import tempfile
        >>> job = {"number": 0, "status": "finished", "summary": {"validation_loss": 0.5}}
        >>> page = write_sweep(tempfile.mkdtemp(), {"metric": "loss", "jobs": [job]}, {})
        >>> sorted(path.name for path in page.parent.iterdir())
        ['sweep.csv', 'sweep.html']
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    found = read_sweep(sweep, lambda job: histories.get(job.number, ()))
    _replace(target / "sweep.csv", csv_text(found))
    page = target / "sweep.html"
    _replace(page, _page(target, found, histories))
    return page


def _page(folder: Path, sweep: Sweep, histories: Mapping[int, Rows]) -> str:
    linked = {job.number for job in sweep.jobs if _has_page(folder, job)}
    plan = shown_lines(sweep.plan)
    body = "".join(
        (
            _header(folder.resolve().name, sweep),
            _cards(sweep),
            section("Best job", _best(sweep, linked)),
            section("Settings and results", parallel_coordinates(sweep)),
            section("Jobs", best_table(sweep, linked)),
            section("Learning curves", learning_curves(sweep, histories)),
            section("Effect of each setting", marginal_effects(sweep), panel=False),
            section("Programs", f"<pre>{escape(plan)}</pre>" if plan else ""),
        )
    )
    numbers = "sweep.csv and sweep.json in the same folder"
    return document(folder.resolve().name, body, numbers, css=SWEEP_CSS)


def shown_lines(lines: tuple[str, ...], most: int = 100) -> str:
    r"""Lines of text as a page can hold them.

    Example:
        >>> shown_lines(("a", "b", "c"), most=2)
        'a\nb\nand 1 more line'
    """
    rest = len(lines) - most
    more = [f"and {rest:,} more line{'' if rest == 1 else 's'}"] if rest > 0 else []
    return "\n".join([*map(shown, lines[:most]), *more])


def _header(name: str, sweep: Sweep) -> str:
    ended = Counter(job.status for job in sweep.jobs)
    state = "finished" if set(ended) <= {"finished", "stopped early", "pruned"} else "broken"
    if state == "broken" and "diverged" not in ended and sweep.ranked:
        state = "stopped"
    said = ", ".join(f"{count:,} {shown(status)}" for status, count in ended.most_common())
    figure = ""
    if sweep.ranked:
        best = sweep.ranked[0]
        figure = (
            f'<div class="headline"><b>{escape(metric(sweep.metric.name, best.value))}</b>'
            f'<span class="muted">{escape(shown(sweep.metric.label))} of job {best.number}, the '
            "best</span></div>"
        )
    badge = f'<p class="status {state}">{escape(said)}</p>' if said else ""
    return (
        f'<header><div><p class="over">functorch_kit sweep</p><h1>{escape(shown(name))}</h1>'
        f"{badge}</div>{figure}</header>\n"
    )


def _cards(sweep: Sweep) -> str:
    shown_cards = {"jobs": f"{len(sweep.jobs):,}"}
    groups = over_seeds(sweep)
    if 1 < len(groups) < len(sweep.jobs):
        shown_cards["settings, without seeds"] = f"{len(groups):,}"
    if sweep.compiles is not None:
        shown_cards["programs compiled"] = f"{sweep.compiles:,.0f}"
    if sweep.seconds is not None:
        shown_cards["time"] = duration(sweep.seconds)
        if len(sweep.jobs) > 1:
            shown_cards["time per job"] = duration(sweep.seconds / len(sweep.jobs))
    inner = "".join(
        f'<div class="card"><dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>'
        for label, text in shown_cards.items()
    )
    return f'<dl class="cards" style="--n:{len(shown_cards)}">{inner}</dl>\n'


def _best(sweep: Sweep, linked: set[int]) -> str:
    if not sweep.ranked:
        what = shown(sweep.metric.label)
        return f'<p class="muted">No job has come to its end with a {escape(what)}.</p>'
    best = sweep.ranked[0]
    overrides = override_words(best.settings)
    line = one_line(overrides)
    if not overrides:
        given = '<p class="muted">The jobs do not differ in their settings.</p>'
    elif len(line) > _LONGEST_LINE or not line.isprintable():
        given = '<p class="muted">Its settings are too long, or too odd, to stand here.</p>'
    else:
        given = (
            f'<pre class="copy">{escape(line)}</pre><p class="note">What sets it apart from the'
            " other jobs. With all that they share: <code>python experiments/best.py sweep=&lt;this"
            " folder&gt;</code></p>"
        )
    if sweep.metric.is_fallback:
        given += (
            '<p class="note">No job has a validation metric: they are compared by the'
            f" {escape(shown(sweep.metric.label))} that was logged last.</p>"
        )
    results = {
        shown(words(name)): shown(metric(name, value))
        for name, value in best.summary.items()
        if name not in _NOT_RESULTS
    }
    link = f'<p class="note"><a href="{escape(page_of(best))}">its own report</a></p>'
    right = facts(results) + (link if best.number in linked else "")
    return (
        f'<div class="best-job{" two" if right else ""}"><div><h3>Job {best.number}: '
        f"{escape(shown(sweep.metric.label))} "
        f"{escape(metric(sweep.metric.name, best.value))}</h3>{given}</div><div>{right}</div></div>"
    )


def _has_page(folder: Path, job: Job) -> bool:
    # A job of which nothing is known to have been written may still have left its page.
    where = folder / (job.folder or str(job.number)) / "report.html"
    try:
        return (job.is_complete and job.folder is not None) or where.is_file()
    except (OSError, ValueError):  # a name that the system cannot hold
        return False


def _replace(path: Path, text: str) -> None:
    # Written beside and moved: whoever looks meanwhile sees the old one whole. No newline is
    # translated, and what no Unicode text can hold is written as an escape.
    draft = path.with_name(f"{path.name}.part")
    draft.write_bytes(text.encode("utf-8", "backslashreplace"))
    draft.replace(path)
