"""Whether ``compare`` tells the truth: its time of a jitted step, and that of a bare loop.

Ours is the median that ``fk.compare`` gives for its ``jit`` row; the peer ``bare_loop`` is ten
lines around a jitted call, with a clock (``ours/one_step.py``).
Command: ``python experiments/benchmarks/compare_truth.py``. Expected on two cores, in two minutes:
a ratio between 0.95 and 1.05 in every row.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import contest


def comparisons(options: argparse.Namespace) -> list[contest.Comparison]:
    """Both nets of the digits."""
    calls = ["--calls", "3"] if options.quick else []

    def contender(work: str, way: str) -> contest.Contender:
        script = str(contest.HERE / "ours" / "one_step.py")
        return contest.Contender(
            [script, work, way, *calls], timing="printed", environment={"XDG_CACHE_HOME": "{cache}"}
        )

    return [
        contest.Comparison(
            work, "bare_loop", "µs/step", contender(work, "compare"), contender(work, "bare_loop")
        )
        for work in ("digits_mlp", "digits_cnn")
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__
    return contest.main(__doc__.splitlines()[0], comparisons, pairs=8, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
