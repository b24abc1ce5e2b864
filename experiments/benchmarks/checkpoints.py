"""What saving costs a run: the small GPT with a checkpoint every 10 or 100 steps, and with none.

Ours saves in the background while it trains; its peer ``not_saving`` is the same run, which saves
at the evaluation after each sample only. Command: ``python experiments/benchmarks/checkpoints.py``.
Expected on two cores, in about ten minutes: at most 1.15 for every 10 steps, 1.03 for every 100.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import contest


def comparisons(options: argparse.Namespace) -> list[contest.Comparison]:
    """Both intervals."""

    def contender(every: int) -> contest.Contender:
        counts = ["--steps", "20", "--samples", "1"] if options.quick else []
        script = str(contest.HERE / "ours" / "saving.py")
        return contest.Contender(
            [script, "{folder}/run", "--every", str(every), *counts],
            timing="printed",
            environment={"XDG_CACHE_HOME": "{cache}", "MPLCONFIGDIR": "{cache}/matplotlib"},
        )

    return [
        contest.Comparison(
            f"gpt_nano_every_{every}",
            "not_saving",
            "ms/step",
            contender(every),
            contender(0),
            facts=["checkpoint_bytes"],
        )
        for every in (10, 100)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__
    return contest.main(__doc__.splitlines()[0], comparisons, pairs=6, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
