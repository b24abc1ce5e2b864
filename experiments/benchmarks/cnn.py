"""The lecture's headline table: passes of convolutional nets, by the protocol of cnn-benchmarks.

Batch 16, images of 224 × 224, training mode, random input and output gradient, no loss and no
optimizer; one pass that does not count and ten timed ones, each waited for: ours/cnn_passes.py.
Ours is the jitted net in float32; beside it stand

- ``eager``: operation by operation; of small nets alone, or of those named by ``--net``;
- ``naive``: convolutions written as sums of shifted products, the lecture's "no cuDNN";
- ``bf16``: computed in bfloat16, parameters kept in float32;
- ``cpu``: the same machine's CPU, where there is a GPU;
- ``lecture_cudnn``, ``lecture_no_cudnn``, ``lecture_cpu``: what jcjohnson/cnn-benchmarks had.

Command: ``python experiments/benchmarks/cnn.py``: every net on a GPU; on a CPU AlexNet, VGG-16,
ResNet-18 and ResNet-50, or those of ``--net``; ``--only`` leaves columns out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import contest
import surroundings

UNIT = "ms/pass"
OURS = "ours"


class Lecture(NamedTuple):
    """Milliseconds of a pass as the lecture had them; None where it had none."""

    forward: float
    backward: float
    cudnn: float
    no_cudnn: float | None
    cpu: float | None


LECTURE = {
    "alexnet": Lecture(5.04, 9.52, 14.56, None, None),
    "inception_v1": Lecture(12.06, 27.08, 39.14, 143.36, None),
    "vgg16": Lecture(41.59, 87.03, 128.62, 358.53, 8495.48),
    "vgg19": Lecture(48.09, 99.23, 147.32, 440.08, 9849.23),
    "resnet18": Lecture(10.14, 21.40, 31.54, 96.40, 2195.78),
    "resnet34": Lecture(17.01, 34.58, 51.59, 172.98, 3965.21),
    "resnet50": Lecture(35.03, 68.54, 103.58, 246.58, 6627.25),
    "resnet101": Lecture(53.38, 103.06, 156.44, 419.11, 11306.24),
    "resnet152": Lecture(75.45, 142.47, 217.91, 609.43, 16872.78),
    "resnet200": Lecture(104.74, 191.77, 296.51, 834.48, 22425.16),
}
ON_A_CPU = ("alexnet", "vgg16", "resnet18", "resnet50")
SMALL = ("alexnet", "resnet18")
COLUMNS: dict[str, list[str]] = {
    OURS: [],
    "eager": ["--how", "eager"],
    "naive": ["--convolution", "naive"],
    "bf16": ["--dtype", "bf16"],
    "cpu": [],
}
CAVEATS = """\
lecture: Torch7, 2016, Pascal Titan X with CUDA 8.0 RC and cuDNN 5.1; CPU: two Xeon E5-2630 v3.
Its caveats hold here, too: the CPU's figures are those of an untuned program, the comparison of
one CPU with one GPU is unfair to the CPU, and what is measured is a pass and not training: no loss,
no optimizer, no reading of data. Ours are other machines, other decades: read the ratios."""


def contender(net: str, column: str, options: argparse.Namespace) -> contest.Contender:
    """The process that measures one column of one net."""
    words = [net, *COLUMNS[column]]
    words += ["--passes", str(2 if options.quick else options.passes)]
    if options.quick:
        words += ["--batch", "2", "--side", "64"]
    environment: dict[str, str | None] = {"XDG_CACHE_HOME": "{cache}"}
    if column == "cpu":
        environment["JAX_PLATFORMS"] = "cpu"
    script = str(contest.HERE / "ours" / "cnn_passes.py")
    return contest.Contender([script, *words], timing="printed", environment=environment)


def plan(options: argparse.Namespace, platform: str) -> dict[str, list[str]]:
    """Net -> columns, on a machine whose best device is a ``cpu`` or something better."""
    if options.quick:
        chosen = {net: [OURS, "naive"] for net in options.net or ["alexnet"]}
    else:
        nets = options.net or (ON_A_CPU if platform == "cpu" else LECTURE)
        chosen = {}
        for net in nets:
            eager = ["eager"] if net in SMALL or options.net else []
            cpu = ["cpu"] if platform != "cpu" and (net in ON_A_CPU or options.net) else []
            chosen[net] = [OURS, *eager, "naive", "bf16", *cpu]
    wanted = options.only or COLUMNS
    return {
        net: [each for each in columns if each == OURS or each in wanted]
        for net, columns in chosen.items()
    }


def measured(
    net: str, columns: Sequence[str], options: argparse.Namespace, cache: Path
) -> list[contest.Row]:
    """A row for each column beside ours, and for each figure of the lecture."""
    figures: dict[str, list[float]] = {column: [] for column in columns}
    facts: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for _ in range(options.pairs):
        for column in columns:
            if column in failed:
                continue
            try:
                figure, known, _ = contest.start(
                    contender(net, column, options), sys.executable, cache
                )
            except contest.ContenderFailed as error:
                failed[column] = str(error)
                continue
            figures[column].append(figure)
            facts[column] = known
            print(f"{net}, {column}: {figure:.4g} {UNIT}", file=sys.stderr, flush=True)
    ours = [] if OURS in failed else figures[OURS]
    rows: list[contest.Row] = []
    for column in columns:
        if column == OURS:
            continue
        if OURS in failed or column in failed:
            side = "ours" if OURS in failed else "theirs"
            note = f"{side} failed: {failed.get(OURS) or failed[column]}"
            rows.append(_row(net, column, note=note))
            continue
        theirs = figures[column]
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        low, high = contest.median_interval(ratios)
        rows.append(
            _row(net, column, ours, statistics.median(theirs), statistics.median(ratios))
            | {"low": low, "high": high, "pairs": len(ratios), "note": facts[column]["device"]}
            | {"forward_ms": facts[column]["forward_ms"]}
            | {"backward_ms": facts[column]["backward_ms"]}
        )
    if OURS in failed:
        return rows or [_row(net, OURS, note=f"ours failed: {failed[OURS]}")]
    # A row of its own: the columns beside it are ratios.
    own = {name: facts[OURS][name] for name in ("forward_ms", "backward_ms")}
    rows.insert(0, _row(net, OURS, ours, statistics.median(ours), 1.0) | own)
    rows[0] |= {"note": facts[OURS]["device"], "pairs": len(ours)}
    if not options.quick:  # the lecture's sizes alone can stand beside the lecture's figures
        known = LECTURE[net]
        for name in ("cudnn", "no_cudnn", "cpu"):
            if (figure := getattr(known, name)) is not None:
                ratio = statistics.median(ours) / figure
                note = "another machine, another decade"
                rows.append(_row(net, f"lecture_{name}", ours, figure, ratio, note=note))
    return rows


def _row(
    net: str,
    peer: str,
    ours: Sequence[float] = (),
    theirs: float | None = None,
    ratio: float | None = None,
    note: str = "",
) -> contest.Row:
    return {
        "work": net,
        "peer": peer,
        "ours": statistics.median(ours) if ours else None,
        "theirs": theirs,
        "unit": UNIT,
        "ratio": ratio,
        "low": ratio,
        "high": ratio,
        "pairs": 0,
        "note": note,
    }


def table(rows: Sequence[contest.Row]) -> str:
    """A line for each net: ours, the columns beside it, the lecture's, and the ratios of both."""
    found: dict[str, dict[str, contest.Row]] = {}
    for row in rows:
        found.setdefault(row["work"], {})[row["peer"]] = row
    names = ["net", "forward", "backward", "total", "eager", "naive", "bf16", "cpu"]
    names += ["naive/ours", "cpu/ours", "| cuDNN", "none", "cpu", "none/cuDNN", "cpu/cuDNN"]
    lines = [names]
    for net, by_peer in found.items():
        own, known = by_peer.get(OURS, {}), LECTURE[net]
        beside = {name: by_peer.get(name, {}).get("theirs") for name in COLUMNS}
        lecture = [known.cudnn, known.no_cudnn, known.cpu]
        lines.append(
            [
                net,
                *map(_cell, (own.get("forward_ms"), own.get("backward_ms"), own.get("theirs"))),
                *(_cell(beside[name]) for name in ("eager", "naive", "bf16", "cpu")),
                *(_cell(_over(beside[name], own.get("theirs"))) for name in ("naive", "cpu")),
                f"| {_cell(lecture[0])}",
                *map(_cell, lecture[1:]),
                *(_cell(_over(each, known.cudnn)) for each in lecture[1:]),
            ]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _over(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one / other


def _cell(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if value < 1000 else f"{value:.0f}"


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny images: does it run at all?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write head and rows here")
    parser.add_argument("--net", nargs="+", choices=LECTURE, help="these nets alone")
    parser.add_argument("--only", nargs="+", choices=[*COLUMNS], help="these columns beside ours")
    parser.add_argument("--passes", type=int, default=10, metavar="N", help="10 if not given")
    parser.add_argument("--pairs", type=int, default=1, metavar="N", help="1 if not given")
    options = parser.parse_args(arguments)
    head = surroundings.head(sys.executable, sys.executable, quick=options.quick)
    platform = head["machine"]["device"].split()[0]
    rows: list[contest.Row] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-cache-") as cache:
        for net, columns in plan(options, platform).items():
            rows += measured(net, columns, options, Path(cache))
    after = surroundings.ceiling(sys.executable)["ceiling_gflops"]
    head |= {"ceiling_gflops_after": after, "caveats": " ".join(CAVEATS.split())}
    print(f"milliseconds a pass on {head['machine']['device']}; right of the bar the lecture's")
    print(table(rows))
    if platform == "cpu":
        print("there is no GPU here: the ratio of CPU to GPU is left out")
    notes = [f"{row['work']}, {row['peer']}: {row['note']}" for row in rows if row["ratio"] is None]
    print("\n".join([*notes, CAVEATS]))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"head": head, "rows": rows}, indent=2, ensure_ascii=False)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 1 if notes else 0


if __name__ == "__main__":
    sys.exit(main())
