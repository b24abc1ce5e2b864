"""The sections of the page, each from plain data to HTML; empty where there is nothing to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from functorch_kit.report.images import data_uri, thumbnail
from functorch_kit.report.markup import escape, facts, section, table
from functorch_kit.report.quantities import as_number, count, duration, metric, words
from functorch_kit.report.tables import program_table

# More cells than this make a matrix that nobody reads and a page that nobody can send.
_CLASSES = 40
_PAIRS = 12
_MISTAKES = 24
_EVALUATIONS = 200


def evaluations(rows: Sequence[Mapping[str, Any]], best_step: int | None) -> str:
    """Every evaluation as a folded table, for those who want the numbers behind the curves.

    Args:
        rows: the rows of ``metrics.jsonl``.
        best_step: the step to mark, or None.

    Returns:
        HTML.

    Example:
        >>> evaluations([], None)
        ''
    """
    found = [row for row in rows if row.get("split") != "train"]
    if not found:
        return ""
    names = [
        name
        for name in dict.fromkeys(name for row in found for name in row)
        if name not in ("step", "split", "best") and any(as_number(r.get(name)) for r in found)
    ]
    shown = found[-_EVALUATIONS:]
    several = len({row.get("split") for row in shown}) > 1
    body = [
        [
            f"{row.get('step', ''):,}"
            + (f" {row.get('split')}" if several and row.get("split") != "validation" else "")
            + (" (best)" if best_step == row.get("step") else ""),
            *(metric(name, row.get(name)) for name in names),
        ]
        for row in shown
    ]
    hidden = len(found) - len(shown)
    title = f"{len(found)} evaluations" if len(found) > 1 else "1 evaluation"
    if hidden:
        title += f", the last {len(shown)} of them"
    inner = table(["step", *(words(name) for name in names)], body)
    return f"<details><summary>{escape(title)}</summary>{inner}</details>"


def confusion_matrix(matrix: Any, class_names: Sequence[Any] | None) -> str:
    """The confusion matrix: counts in cells, blue on the diagonal, orange for mistakes.

    Args:
        matrix: counts, shape (K, K), row = true class, column = predicted class; None for none.
        class_names: K names; the numbers from 0 where there are none.

    Returns:
        HTML: a table, or above forty classes the pairs most often confused.

    Example:
        >>> "90.0" in confusion_matrix([[9, 1], [0, 5]], ["cat", "dog"])
        True
    """
    if matrix is None:
        return ""
    counts = np.nan_to_num(np.asarray(matrix, np.float64))
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        return ""
    names = [str(name) for name in class_names or ()]
    names += [str(index) for index in range(len(names), len(counts))]
    if len(counts) > _CLASSES:
        return section("Most confused", _confused_pairs(counts, names))
    totals = counts.sum(axis=1)
    slant = ' class="slant"' if max(len(name) for name in names) > 3 else ""
    head = "".join(f'<th scope="col"{slant}>{escape(n)}</th>' for n in names[: len(counts)])
    body = []
    for index, row in enumerate(counts):
        cells = "".join(
            _cell(value, index == column, totals[index], names[index], names[column])
            for column, value in enumerate(row)
        )
        recall = f"{100 * row[index] / totals[index]:.1f}" if totals[index] else "-"
        body.append(
            f'<tr><th scope="row">{escape(names[index])}</th>{cells}'
            f'<td class="recall">{recall}</td></tr>'
        )
    wrong = int(totals.sum() - np.trace(counts))
    caption = (
        f"{int(totals.sum()):,} examples, {wrong:,} of them wrong. Rows are the true classes, "
        "columns the predicted ones; at the right, the share found of each class in per cent."
    )
    return section(
        "Confusion matrix",
        f'<div class="scroll"><table class="confusion"><thead><tr><th></th>{head}'
        f'<th class="recall">%</th></tr></thead><tbody>{"".join(body)}</tbody></table></div>'
        f'<p class="note">{caption}</p>',
    )


def _cell(value: float, right: bool, total: float, true: str, said: str) -> str:
    if not value:
        return '<td class="none">0</td>'
    # Mistakes are rare: on the scale of the diagonal they would all look alike.
    share = value / total
    alpha = 0.15 + 0.85 * share if right else 0.28 + 0.52 * share**0.5
    strong = " strong" if right and alpha > 0.6 else ""
    title = f"{true}: {int(value)} right" if right else f"{true} taken for {said}: {int(value)}"
    return (
        f'<td class="{"right" if right else "wrong"}{strong}" style="--a:{alpha:.2f}" '
        f'title="{escape(title)}">{int(value)}</td>'
    )


def _confused_pairs(counts: np.ndarray, names: Sequence[str]) -> str:
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    pairs = [divmod(int(place), len(counts)) for place in order if wrong.flat[place] > 0]
    if not pairs:
        return '<p class="muted">Not one mistake.</p>'
    rows = [[names[i], names[j], f"{int(wrong[i, j]):,}"] for i, j in pairs]
    return table(["true", "predicted", "times"], rows)


def worst_mistakes(
    mistakes: Sequence[Mapping[str, Any]] | None, names: Sequence[Any] | None
) -> str:
    """A grid of the pictures that the model was most sure of and wrong about.

    Args:
        mistakes: dicts with image, (H, W) or (H, W, C) in 0..1, label, predicted, probability.
        names: names of the classes, or None.

    Returns:
        HTML; what is no picture is shown by its words alone.

    Example:
        >>> worst_mistakes([], None)
        ''
    """
    tiles = []
    for mistake in (mistakes or ())[:_MISTAKES]:
        label, said = (_class_name(mistake.get(key), names) for key in ("label", "predicted"))
        try:
            picture = data_uri(thumbnail(mistake["image"]))
            image = f'<img src="{picture}" alt="{escape(f"a {label} taken for {said}")}">'
        except (KeyError, ValueError, TypeError):
            image = ""
        probability = as_number(mistake.get("probability"))
        sure = "" if probability is None else f"<small>{100 * probability:.1f} % sure</small>"
        tiles.append(
            f'<li>{image}{escape(label)} → <span class="said">{escape(said)}</span>{sure}</li>'
        )
    if not tiles:
        return ""
    note = '<p class="note">True class → what the model said, and how sure it was.</p>'
    return section(
        "Worst mistakes", f'<ul class="mistakes">{"".join(tiles)}</ul>{note}', panel=False
    )


def _class_name(label: Any, names: Sequence[Any] | None) -> str:
    number = as_number(label)
    if number is not None and names is not None and 0 <= int(number) < len(names):
        return str(names[int(number)])
    return "?" if label is None else str(label if number is None else int(number))


def program_report(program: Mapping[str, Any]) -> str:
    """What was compiled, in which form it ran, and how long the device waited for data.

    Args:
        program: the fields of ``program.json``.

    Returns:
        HTML.

    Example:
        >>> program_report({})
        ''
    """
    reports = program.get("programs") or {}
    parts = []
    reports = reports.items() if isinstance(reports, Mapping) else ()
    found = [{"name": name, **report} for name, report in reports if isinstance(report, Mapping)]
    if found:
        compiled = program_table(found)
        parts.append(table(compiled.header, compiled.rows))
        for report in found:
            left = report.get("not_donated") or []
            if left:
                parts.append(
                    f'<p class="note">{escape(report["name"])} does not reuse the buffers of '
                    f"{escape(_with_reasons(report, left))}.</p>"
                )
    if program.get("form"):
        per_dispatch = as_number(program.get("steps_per_dispatch")) or 1
        form = "one step at a time" if per_dispatch == 1 else f"{per_dispatch:,.0f} steps at a time"
        text = f"Form: {program['form']}, {form} at most."
        if per_dispatch == 1:
            text = f"Form: {program['form']}, {form}."
        reason = str(program.get("form_reason") or "").strip()
        parts.append(f'<p class="note">{escape(text)} {escape(_sentence(reason))}</p>')
    return section("Program", *parts)


def _with_reasons(report: Mapping[str, Any], left: Sequence[Any]) -> str:
    why = report.get("why_not_donated")
    reasons = why if isinstance(why, Mapping) else {}
    names = [f"{name} ({reasons[name]})" if name in reasons else str(name) for name in left]
    return ", ".join(names[:8]) + (" …" if len(left) > 8 else "")


def waiting(program: Mapping[str, Any]) -> str:
    """Input wait against compute, as one bar.

    Args:
        program: the fields of ``program.json``.

    Returns:
        HTML.

    Example:
        >>> "20.0 %" in waiting({"input_wait_seconds": 1.0, "compute_seconds": 4.0})
        True
    """
    wait, compute = (as_number(program.get(f"{k}_seconds")) for k in ("input_wait", "compute"))
    if wait is None or compute is None or not wait + compute > 0:
        return ""
    share = wait / (wait + compute)
    bar = (
        f'<div class="split" role="img" aria-label="input wait {100 * share:.1f} per cent">'
        f'<i style="flex:{1 - share:.4f};background:var(--train)"></i>'
        f'<i style="flex:{share:.4f};background:var(--validation)"></i></div>'
    )
    keys = (
        '<p class="keys">'
        f'<span style="--c:var(--train)">compute {duration(compute)} '
        f"({100 - 100 * share:.1f} %)</span>"
        f'<span style="--c:var(--validation)">waiting for input {duration(wait)} '
        f"({100 * share:.1f} %)</span></p>"
    )
    return section("Where the time went", bar + keys + _input(program.get("input")))


def _input(found: Any) -> str:
    """How rows came, and, where the run waited for them, what to change."""
    if not isinstance(found, Mapping) or not found.get("mode"):
        return ""
    text = f"Input: {found['mode']}. {_sentence(str(found.get('reason') or ''))}"
    rate = as_number(found.get("records_per_second"))
    if rate:
        text += f" Alone it would make {count(rate)} records a second."
    if found.get("advice"):
        text += f" Most of it is {found.get('slowest_stage')}: {found['advice']}."
    if skipped := as_number(found.get("skipped_records")):
        text += f" Bad records skipped: {count(skipped)}."
    return f'<p class="note">{escape(text)}</p>'


def environment_facts(found: Mapping[str, Any]) -> str:
    """Where the run took place.

    Args:
        found: the fields of ``environment.json``.

    Returns:
        HTML.

    Example:
        >>> environment_facts({})
        ''
    """
    rest = dict(found)
    versions, devices, cpu, git, settings = (
        rest.pop(name) if isinstance(rest.get(name), Mapping) else {}
        for name in ("versions", "devices", "cpu", "git", "jax_settings")
    )
    shown: dict[str, Any] = {"python": rest.pop("python", None), **versions}
    if devices:
        number = as_number(devices.get("count")) or 1
        times = f"{count(number)} × " if number > 1 else ""
        kind, platform = str(devices.get("kind", "")), str(devices.get("platform", ""))
        shown["devices"] = times + (kind if kind == platform else f"{kind} ({platform})")
    if cpu:
        cores = as_number(cpu.get("cores"))
        shown["CPU"] = f"{cpu.get('model', '')}" + (f", {cores:.0f} cores" if cores else "")
    if git:
        changed = ", with changes" if git.get("dirty") else ""
        shown["git revision"] = f"{str(git.get('revision', ''))[:12]}{changed}"
    shown |= {words(name): value for name, value in rest.items()}
    shown["JAX settings"] = ", ".join(
        f"{name.removeprefix('jax_')} = {value}"
        for name, value in settings.items()
        if value is not False and value != -1  # switched off, not set
    )
    return section("Environment", facts(shown))


def configuration(text: str) -> str:
    """The resolved configuration, as it stands in ``config.yaml``.

    Args:
        text: the file's text.

    Returns:
        HTML.

    Example:
        >>> "&lt;b&gt;" in configuration("name: <b>")
        True
    """
    text = text.strip()
    return section("Configuration", f"<pre>{escape(text)}</pre>") if text else ""


def _sentence(text: str) -> str:
    return "" if not text else text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")
