"""What guarding every step against NaN and infinity costs: the same steps with and without.

Ours looks at every loss and at the state that each dispatch leaves, and keeps a copy to go back to
(``train.Guard``); its peer ``unguarded`` is the same program without. Works ``…_skip`` and
``…_raise`` are the two kinds of guard. Runs pause every 20 epochs, as those of ``loop.py``; in
``…_every_epoch`` they pause, and are looked at, after every one, though nothing is done there.
Command: ``python experiments/benchmarks/guards.py``. Expected on two cores, in about half an hour:
``high`` at most 1.05 in every row. ``digits_mlp_skip`` came to 1.056, and where it pauses every
epoch to 1.069 (``ratio`` 1.036 and 1.047).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import contest

STEPS = {"digits_mlp": 3000, "digits_cnn": 100}


def comparisons(options: argparse.Namespace) -> list[contest.Comparison]:
    """Each model, each kind of guard."""

    def contender(work: str, policy: str, pause: int) -> contest.Contender:
        steps, samples = (4, 1) if options.quick else (STEPS[work], 3)
        script = str(contest.HERE / "ours" / "steps.py")
        counts = ["--steps", str(steps), "--samples", str(samples)]
        return contest.Contender(
            [script, work, "auto", *counts, "--nonfinite", policy, "--pause", str(pause)],
            timing="printed",
            environment={"XDG_CACHE_HOME": "{cache}"},
        )

    return [
        contest.Comparison(
            f"{work}_{policy}{'_every_epoch' if pause == 1 else ''}",
            "unguarded",
            "µs/step",
            contender(work, policy, pause),
            contender(work, "off", pause),
        )
        for work in STEPS
        for policy in ("skip", "raise")
        for pause in (20, 1)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__
    return contest.main(__doc__.splitlines()[0], comparisons, pairs=30, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
