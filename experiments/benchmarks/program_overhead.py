"""What a call through ``Program`` costs over JAX's own compiled call of the same function.

Work ``program_call``: a function that does next to nothing, of a state of 30 small arrays, so that
a call is almost all dispatch. Ours goes through ``functorch_kit.program.compile``, the peer
``jax_compiled_call`` through ``jax.jit(...).lower(...).compile()``; see ``ours/call.py``.

Command: ``python experiments/benchmarks/program_overhead.py``. Expected on two cores, in a minute:
less than 1 µs a call above the peer's 45 µs, where 5 µs are allowed (measured side by side in one
process, 0.2 to 0.4 µs; on jax 0.10.2 and 0.12).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import contest


def comparisons(options: argparse.Namespace) -> list[contest.Comparison]:
    """One row: the same call, through a Program and without."""
    calls, samples = (20, 1) if options.quick else (5000, 7)

    def contender(way: str) -> contest.Contender:
        script = str(contest.HERE / "ours" / "call.py")
        return contest.Contender(
            [script, way, "--calls", str(calls), "--samples", str(samples)], timing="printed"
        )

    return [
        contest.Comparison(
            "program_call",
            "jax_compiled_call",
            "µs/call",
            contender("program"),
            contender("compiled"),
        )
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__
    return contest.main(__doc__.splitlines()[0], comparisons, pairs=10, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
