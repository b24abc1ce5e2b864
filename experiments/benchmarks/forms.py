"""Forms of dispatch: ``fit``'s own choice against each form and against a hand-written loop.

Ours is the form that ``fit`` chooses for the step and the backend (the note names it), measured
with what it does in ``fit``: rows made on the host, dispatches that end at every epoch, metrics
fetched; see ``ours/steps.py``. Its peers, all of them in this environment:

- ``jax_jit_loop``: a hand-written loop over the same pure step under ``jax.jit``;
- ``chunk_form``, ``single_form``: the two forms. The chosen one is among them, as a control: its
  ratio is 1 as far as the machine allows, and the width of its interval is the noise.

The CNN is measured with the convolution that ``conv`` chooses and with XLA's own, which is slow
inside a loop on a CPU. Command: ``python experiments/benchmarks/forms.py``. Expected on two cores:
every chosen form at most as slow as its peers, in about ten minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import contest

UNIT = "µs/step"
PEERS = {"jax_jit_loop": "jit_loop", "chunk_form": "chunk", "single_form": "single"}
STEPS = {"digits_mlp": 2000, "digits_cnn": 200, "digits_cnn_library_conv": 100}
"""Steps in a sample; a sample of the slowest pair lasts 20 s, of the fastest 0.2 s."""


def comparisons(options: argparse.Namespace) -> list[contest.Comparison]:
    """Every model against every other way of dispatching its steps."""

    def contender(work: str, way: str) -> contest.Contender:
        slow = way == "chunk" and work == "digits_cnn_library_conv"
        steps, samples = (20, 2) if slow else (STEPS[work], 5)
        if options.quick:
            steps, samples = 4, 1
        return contest.Contender(
            [
                str(contest.HERE / "ours" / "steps.py"),
                *(work, way, "--steps", str(steps), "--samples", str(samples)),
            ],
            timing="printed",
            environment={"XDG_CACHE_HOME": "{cache}"},
        )

    return [
        contest.Comparison(
            work, peer, UNIT, contender(work, "auto"), contender(work, way), facts=["form"]
        )
        for work in STEPS
        for peer, way in PEERS.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__
    return contest.main(__doc__.splitlines()[0], comparisons, pairs=6, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
