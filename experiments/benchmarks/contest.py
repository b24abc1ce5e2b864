"""The frame of every benchmark: two contenders alternate, each in a process of its own.

A benchmark is a list of ``Comparison``. After one warm-up pair the contenders run A B A B …, so
that both meet the same machine, and each pair gives one ratio, ours over theirs: below 1 we are
faster. ``ratio`` is the median over the pairs; ``low`` and ``high`` hold the true median with a
probability of at least 95 % (see ``median_interval``).

``python experiments/benchmarks/<name>.py [--quick] [--json FILE] [--peer-python PATH] [--pairs N]``
prints a table. A peer that is not installed is a row that says so; a contender that fails is a row
that says why, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import surroundings

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SECONDS_AT_MOST = 900.0
COLUMNS = ("work", "peer", "ours", "theirs", "unit", "ratio", "low", "high", "pairs", "note")

Row = dict[str, Any]


class ContenderFailed(Exception):
    """A contender ended without a figure; the message is one line that says why."""


@dataclasses.dataclass(frozen=True)
class Contender:
    """A command that is timed.

    Attributes:
        command: what follows the interpreter: a script and its arguments. ``{folder}`` stands for
            a folder that is fresh at every start, ``{cache}`` for one that lasts for the whole
            benchmark; in ``environment`` and ``facts``, too.
        timing: ``"process"``: seconds of the whole process, clocked from outside. ``"printed"``:
            its last line of output is ``{"samples": [...], "unit": "..."}``, measured by itself
            after its own warm-up; their median is its figure. Other keys of that line are facts.
        in_peer_python: whether it runs in the environment that ``--peer-python`` names.
        requires: modules that have to be installed there.
        environment: variables to set; None removes one.
        facts: of a ``"process"``: a JSON file that it writes, whose entries are facts.
    """

    command: Sequence[str]
    timing: str = "process"
    in_peer_python: bool = False
    requires: Sequence[str] = ()
    environment: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    facts: str = ""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Ours against one peer on one piece of work.

    Attributes:
        work: what is done.
        peer: by whom else.
        unit: of both figures.
        ours: our command.
        theirs: the peer's command.
        facts: names of facts (an accuracy, say) that the note quotes for both sides.
        note: what else has to be known to read the row.
    """

    work: str
    peer: str
    unit: str
    ours: Contender
    theirs: Contender
    facts: Sequence[str] = ()
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Pythons:
    """The interpreters of the two environments."""

    ours: str
    peers: str

    def of(self, contender: Contender) -> str:
        """The interpreter that a contender asks for."""
        return self.peers if contender.in_peer_python else self.ours


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """An interval that holds the median of what ``values`` were drawn from.

    The k-th smallest and the k-th largest value, k as large as the confidence allows. It assumes
    nothing but independent draws: the median lies below the k-th smallest of n values only if
    fewer than k of n fair coins show heads. Up to 5 values do not suffice for 95 %: then it is the
    smallest and the largest.
    """
    ordered, n = sorted(values), len(values)
    k, missed = 1, 2 * 0.5**n
    while k < n / 2 and (missed := missed + 2 * math.comb(n, k) * 0.5**n) <= 1 - confidence:
        k += 1
    return ordered[k - 1], ordered[n - k]


def start(contender: Contender, python: str, cache: Path) -> tuple[float, dict[str, Any], str]:
    """Run a contender once.

    Returns:
        Its figure, its facts, and the unit that it named itself (empty if it named none).

    Raises:
        ContenderFailed: it crashed, took too long, or told no figure.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:

        def filled(text: str) -> str:
            return text.replace("{folder}", folder).replace("{cache}", str(cache))

        command = [python, *map(filled, contender.command)]
        environment = _environment(contender, filled)
        began = time.perf_counter()
        try:
            finished = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=SECONDS_AT_MOST,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ContenderFailed(f"no end after {SECONDS_AT_MOST:.0f} s") from None
        except OSError as error:
            raise ContenderFailed(f"cannot start: {error}") from None
        seconds = time.perf_counter() - began
        if finished.returncode:
            raise ContenderFailed(f"exit code {finished.returncode}: {_last(finished.stderr)}")
        if contender.timing == "process":
            return seconds, _facts(filled(contender.facts), finished.stdout), ""
        return _printed(finished.stdout)


def compete(comparison: Comparison, pythons: Pythons, pairs: int, cache: Path) -> Row:
    """Let the two contenders alternate; one row of the result.

    A row whose ``ratio`` is None says in its ``note`` what is not installed, or, after the word
    ``failed``, what went wrong.
    """
    row: Row = dict.fromkeys(COLUMNS) | {
        "work": comparison.work,
        "peer": comparison.peer,
        "unit": comparison.unit,
        "pairs": 0,
        "note": comparison.note,
    }
    sides = {"ours": comparison.ours, "theirs": comparison.theirs}
    for contender in sides.values():
        python = pythons.of(contender)
        if absent := surroundings.missing_modules(python, contender.requires):
            where = "the peers' environment" if contender.in_peer_python else "this environment"
            return row | {"note": f"not installed in {where}: {', '.join(absent)}"}
    figures: dict[str, list[float]] = {name: [] for name in sides}
    facts: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for pair in range(pairs + 1):  # the first pair is the warm-up
        for name, contender in sides.items():
            try:
                figure, known, unit = start(contender, pythons.of(contender), cache)
                if unit not in ("", comparison.unit):
                    raise ContenderFailed(f"measured in {unit}, not in {comparison.unit}")
            except ContenderFailed as error:
                return row | {"note": f"{name} failed: {error}"}
            if pair:
                figures[name].append(figure)
                facts[name].append(known)
        _progress(comparison, pair, pairs, figures)
    ratios = [ours / theirs for ours, theirs in zip(*figures.values(), strict=True)]
    low, high = median_interval(ratios)
    quoted = [_quote(fact, facts) for fact in comparison.facts]
    return row | {
        **{name: statistics.median(values) for name, values in figures.items()},
        "ratio": statistics.median(ratios),
        "low": low,
        "high": high,
        "pairs": pairs,
        "note": "; ".join(part for part in (*quoted, comparison.note) if part),
    }


def main(
    description: str,
    build: Callable[[argparse.Namespace], Sequence[Comparison]],
    *,
    pairs: int,
    options: Callable[[argparse.ArgumentParser], object] = lambda parser: None,
    arguments: Sequence[str] | None = None,
) -> int:
    """The command line of a benchmark.

    Args:
        description: the benchmark, for ``--help``.
        build: the comparisons, from the parsed options (``quick`` among them).
        pairs: how many pairs count where ``--pairs`` says nothing.
        options: adds options of this benchmark's own to the parser.
        arguments: the command line; that of the process if None.

    Returns:
        The exit code: 1 if a contender failed.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="tiny counts: does it run at all?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write head and rows here")
    parser.add_argument("--peer-python", default=sys.executable, metavar="PATH")
    parser.add_argument("--pairs", type=_positive, metavar="N", help=f"{pairs} if not given")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="these rows alone, by work or by peer"
    )
    options(parser)
    chosen = parser.parse_args(arguments)
    count = chosen.pairs or (1 if chosen.quick else pairs)
    pythons = Pythons(sys.executable, chosen.peer_python)
    comparisons = build(chosen)
    if chosen.only:
        names = {name for each in comparisons for name in (each.work, each.peer)}
        if unknown := sorted(set(chosen.only) - names):
            parser.error(
                f"--only: no row is called {unknown[0]!r}: give {', '.join(sorted(names))}"
            )
        comparisons = [each for each in comparisons if {each.work, each.peer} & set(chosen.only)]
    head = surroundings.head(pythons.ours, pythons.peers, quick=chosen.quick)
    with tempfile.TemporaryDirectory(prefix="benchmark-cache-") as cache:
        rows = [compete(each, pythons, count, Path(cache)) for each in comparisons]
    head |= {"ceiling_gflops_after": surroundings.ceiling(pythons.ours)["ceiling_gflops"]}
    print(table(rows))
    if chosen.json:
        text = json.dumps({"head": head, "rows": rows}, indent=2, ensure_ascii=False)
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(text + "\n", encoding="utf-8")
    failed = any(row["ratio"] is None and " failed: " in row["note"] for row in rows)
    return 1 if failed else 0


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text, notes below them."""
    shown = [[_cell(name, row[name]) for name in COLUMNS[:-1]] for row in rows]
    lines = [list(COLUMNS[:-1]), *shown]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    left = {COLUMNS.index(name) for name in ("work", "peer", "unit")}
    text = [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    notes = [f"{row['work']}, {row['peer']}: {row['note']}" for row in rows if row["note"]]
    return "\n".join([*text, *notes])


def _environment(contender: Contender, filled: Callable[[str], str]) -> dict[str, str]:
    environment = dict(os.environ)
    # A cache that the caller happens to have configured must not serve one side alone.
    for name in ("JAX_COMPILATION_CACHE_DIR", "FUNCTORCH_KIT_CACHE"):
        environment.pop(name, None)
    if not contender.in_peer_python:  # the package need not be installed to be measured
        before = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([before] if before else [])])
    for name, value in contender.environment.items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = filled(value)
    return environment


def _facts(path: str, output: str) -> dict[str, Any]:
    if path:
        try:
            return json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ContenderFailed(f"its facts cannot be read: {error}") from None
    return _last_object(output) or {}


def _printed(output: str) -> tuple[float, dict[str, Any], str]:
    facts = _last_object(output)
    if facts is None:
        raise ContenderFailed("its last line of output is no JSON object with samples")
    samples = facts.pop("samples", None)
    numbers = isinstance(samples, list) and all(isinstance(each, float | int) for each in samples)
    if not samples or not numbers or not all(0 < each < math.inf for each in samples):
        raise ContenderFailed(f"samples are {samples}, not positive numbers")
    return statistics.median(samples), facts, str(facts.pop("unit", ""))


def _last_object(output: str) -> dict[str, Any] | None:
    try:
        found = json.loads(_last(output))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _quote(fact: str, facts: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """``test_accuracy: ours 0.9889, theirs 0.986``, the median where it is a number."""
    quoted: list[str] = []
    for name, runs in facts.items():
        values = [run[fact] for run in runs if fact in run]
        if values and all(isinstance(value, float | int) for value in values):
            quoted.append(f"{name} {statistics.median(values):.4g}")
        elif values:
            quoted.append(f"{name} {values[-1]}")
        else:
            quoted.append(f"{name} unknown")
    return f"{fact}: {', '.join(quoted)}"


def _progress(comparison: Comparison, pair: int, pairs: int, figures: Mapping[str, Any]) -> None:
    last = ", ".join(f"{name} {values[-1]:.4g}" for name, values in figures.items() if values)
    what = f"pair {pair}/{pairs}: {last} {comparison.unit}" if pair else "warm-up done"
    print(f"{comparison.work}, {comparison.peer}: {what}", file=sys.stderr, flush=True)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}" if name in ("ratio", "low", "high") else f"{value:.4g}"
    return str(value)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("give a whole number from 1 up")
    return number
