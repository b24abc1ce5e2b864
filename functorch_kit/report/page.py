"""``report.html``: one page that holds a whole run and loads nothing from anywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from functorch_kit.report.layouts import layout_section
from functorch_kit.report.markup import document, escape, side_by_side
from functorch_kit.report.quantities import (
    as_number,
    count,
    duration,
    is_share,
    metric,
    size,
    words,
)
from functorch_kit.report.records import RecordError, read_metrics
from functorch_kit.report.run_curves import run_curves
from functorch_kit.report.sections import (
    configuration,
    confusion_matrix,
    environment_facts,
    program_report,
    waiting,
    worst_mistakes,
)

_CARDS = 6
_HEADLINES = (
    "test_accuracy", "validation_accuracy", "test_loss", "validation_loss", "train_loss",
)  # fmt: skip


def write_page(
    run_dir: str | os.PathLike[str],
    *,
    confusion: Any = None,
    class_names: Iterable[Any] | None = None,
    mistakes: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """Write ``report.html`` from the files of a run.

    Read are summary.json, metrics.jsonl, program.json, environment.json and config.yaml; a section
    whose file is missing or damaged is absent.

    Args:
        run_dir: the run's folder.
        confusion: counts, shape (K, K), row = true class, column = predicted class.
        class_names: K names of classes.
        mistakes: dicts with ``image`` (H, W) or (H, W, C) in 0..1, ``label``, ``predicted`` and
            ``probability``, the worst first.

    Returns:
        The path of the page.

    Example:
        >>> import tempfile
        >>> write_page(tempfile.mkdtemp()).name
        'report.html'
    """
    folder = Path(run_dir)
    names = None if class_names is None else [str(name) for name in class_names]
    summary, program, found = (
        _fields(folder / f"{name}.json") for name in ("summary", "program", "environment")
    )
    rows = _rows(folder / "metrics.jsonl")
    body = "".join(
        (
            _header(folder.resolve().name, summary),
            _cards(summary, program),
            run_curves(rows, _whole(summary.get("best_step"))),
            side_by_side(
                confusion_matrix(confusion, names),
                worst_mistakes(mistakes, names),
                kind="matrix" if _few(confusion) else "",
            ),
            side_by_side(program_report(program) + waiting(program), environment_facts(found)),
            layout_section(program),
            configuration(_text(folder / "config.yaml")),
        )
    )
    page = folder / "report.html"
    numbers = "summary.json, metrics.jsonl and program.json in the same folder"
    text = document(folder.resolve().name, body, numbers)
    # Written beside and moved: whoever looks at the page meanwhile sees the old one whole.
    draft = page.with_suffix(".html.part")
    draft.write_text(text, encoding="utf-8")
    draft.replace(page)
    return page


def _header(name: str, summary: Mapping[str, Any]) -> str:
    status = str(summary.get("status") or "")
    states = {"finished": "finished", "stopped early": "stopped", "pruned": "stopped"}
    known = states.get(status, "broken")
    text = status
    steps, seconds = as_number(summary.get("steps")), as_number(summary.get("seconds"))
    if status and steps is not None:
        text += f" after {steps:,.0f} step{'' if steps == 1 else 's'}"
        text += f" in {duration(seconds)}" if seconds is not None else ""
    badge = f'<p class="status {known}">{escape(text)}</p>' if status else ""
    headline = _headline(summary)
    figure = ""
    if headline:
        figure = (
            f'<div class="headline"><b>{escape(metric(headline, summary[headline]))}</b>'
            f'<span class="muted">{escape(words(headline))}'
            f"{' of the best checkpoint' if headline.startswith('test') else ''}</span></div>"
        )
    return (
        f'<header><div><p class="over">functorch_kit run</p><h1>{escape(name)}</h1>{badge}</div>'
        f"{figure}</header>\n"
    )


def _headline(summary: Mapping[str, Any]) -> str | None:
    return next((name for name in _HEADLINES if as_number(summary.get(name)) is not None), None)


def _cards(summary: Mapping[str, Any], program: Mapping[str, Any]) -> str:
    shown: dict[str, str] = {}
    headline = _headline(summary)
    for split in ("test_", "validation_", "train_"):
        names = [name for name in summary if name.startswith(split) and name != headline]
        for name in sorted(names, key=lambda name: not is_share(name)):
            if as_number(summary[name]) is not None:
                shown[words(name)] = metric(name, summary[name])
    steps, seconds = as_number(summary.get("steps")), as_number(summary.get("seconds"))
    best_step = as_number(summary.get("best_step"))
    if best_step is not None:
        shown["best step"] = f"{best_step:,.0f}"
    parameters = as_number(summary.get("parameters"))
    if parameters is not None:
        shown["parameters"] = f"{parameters:,.0f}" if parameters < 1e7 else count(parameters)
    if steps and seconds:
        shown["steps per second"] = _speed(steps / seconds)
    programs = program.get("programs")
    train = programs.get("train_step") if isinstance(programs, Mapping) else None
    if isinstance(train, Mapping):
        flops, peak = as_number(train.get("flops")), as_number(train.get("peak_bytes"))
        if flops:
            shown["FLOPs per step"] = count(flops)
        if peak:
            shown["peak memory"] = size(peak)
    if not shown:
        return ""
    inner = "".join(
        f'<div class="card"><dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>'
        for label, text in shown.items()
    )
    # Rows of equal length look better than a full one and a rest.
    lines = -(-len(shown) // _CARDS)
    return f'<dl class="cards" style="--n:{-(-len(shown) // lines)}">{inner}</dl>\n'


def _speed(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _few(matrix: Any) -> bool:
    """Whether a confusion matrix leaves room for something beside it."""
    return np.ndim(matrix) == 2 and len(matrix) <= 12


def _whole(value: Any) -> int | None:
    number = as_number(value)
    return None if number is None else int(number)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _fields(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(_text(path) or "{}")
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        return read_metrics(path)
    except (OSError, RecordError):
        return []
