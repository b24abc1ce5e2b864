"""Data: batches from a memory-mapped file, and reading beside computing.

Work ``memory_mapped_batches``: shuffled batches of 256 from a file of 100,000 × 784 float32, in
microseconds a batch, on the device, checked (``ours/batches.py``) against

- ``numpy_gather``: ``x[permutation[i:j]]`` of the same map, in our own environment: no order to
  find, no check, no device;
- ``torch_dataloader``, ``torch_dataloader_2_workers``: PyTorch's, with none and two workers.

Work ``overlap``: a training step of T whose batch takes 0.8 T to read, against ``ideal``, the same
step on data that are there. Work ``checked_steps``: training steps on batches whose every value is
checked, against ``unchecked`` ones (``ours/overlap.py``).

Command: ``python experiments/benchmarks/data.py --peer-python <python with PyTorch>``.
Expected on two cores, in about ten minutes: at most 1.25 × ``numpy_gather``, 0.2 × the better of
``torch_dataloader``, 1.05 × ``unchecked``, 1.05 × ``ideal``. The note says what random access to
the order of 10**12 records costs for 256 of them: 100 µs at most.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import contest

UNIT = "µs/batch"


def comparisons(options: argparse.Namespace) -> list[contest.Comparison]:
    """Ours against every peer."""
    counts = ["--batches", "20", "--samples", "2"] if options.quick else []
    records = ["--records", "2000" if options.quick else "100000"]
    file = ["{cache}/x.npy", *records, *counts]

    def ours(how: str) -> contest.Contender:
        script = str(contest.HERE / "ours" / "batches.py")
        return contest.Contender([script, how, *file], timing="printed")

    def torch(workers: int) -> contest.Contender:
        script = str(contest.HERE / "peers" / "torch_batches.py")
        return contest.Contender(
            [script, *file, "--workers", str(workers)],
            timing="printed",
            in_peer_python=True,
            requires=["torch"],
        )

    def steps(how: str) -> contest.Contender:
        script = str(contest.HERE / "ours" / "overlap.py")
        few = ["--steps", "16", "--samples", "1"] if options.quick else []
        return contest.Contender([script, how, *few], timing="printed")

    work = "memory_mapped_batches"
    return [
        contest.Comparison(
            work, "numpy_gather", UNIT, ours("ours"), ours("numpy"), ["mode", "order_us"]
        ),
        contest.Comparison(work, "torch_dataloader", UNIT, ours("ours"), torch(0)),
        contest.Comparison(work, "torch_dataloader_2_workers", UNIT, ours("ours"), torch(2)),
        contest.Comparison(
            "overlap", "ideal", "ms/step", steps("overlapped"), steps("ideal"), ["waited_share"]
        ),
        contest.Comparison("checked_steps", "unchecked", "ms/step", steps("checked"), steps("off")),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__
    return contest.main(__doc__.splitlines()[0], comparisons, pairs=9, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
