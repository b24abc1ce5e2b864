"""Function transforms against PyTorch's, and against one plain gradient.

Works of functorch's CNN (convolutions 1→32→64 of 3 × 3, a pool, 9216→128→10, batch 64, 28 × 28):

- ``per_sample_gradients`` against ``torch_func``: the better of ``torch.func``'s vmap and a loop;
- ``clipped_sum`` against ``plain_gradient``: our own gradient of the batch's mean loss;
- ``dp_step`` against ``opacus``: clipped sum, noise and SGD, against Opacus' optimizer.

Works of functorch's tutorial on Jacobians, ``tanh(x @ W + b)``, in µs:

- ``jacobian_32_2048`` and ``jacobian_2048_32`` against ``best_mode``: JAX's ``jacfwd`` and
  ``jacrev``.

Products with curvature matrices and a neural tangent kernel: see ``curvature_rows.py``.

Ours is ``ours/transform_steps.py``; it measures ``plain_gradient`` as well.

Command: ``python experiments/benchmarks/transforms.py --peer-python <python with torch>``. Wanted
on two cores: at most 0.7, 1.5 and 1.0 × for the net, 1.1 × for the Jacobians, 2.2 and 1.6 × a
gradient for the products, 1.0 × for the kernel.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple

import contest
import curvature_rows


class Work(NamedTuple):
    """One row.

    Attributes:
        peer: by whom else it is done.
        script: of the peer, below this folder, and its arguments.
        steps: in a sample, which lasts about a second.
        unit: of the figures.
        requires: what has to be installed where the peers are; empty if it runs where ours does.
        facts: what the note quotes.
    """

    peer: str
    script: Sequence[str]
    steps: int
    unit: str = "ms/step"
    requires: Sequence[str] = ()
    facts: Sequence[str] = ()


WORKS = {
    "per_sample_gradients": Work(
        "torch_func",
        ("peers/torch_transforms.py", "per_sample_gradients"),
        8,
        requires=("torch", "sklearn"),
        facts=("way",),
    ),
    "clipped_sum": Work("plain_gradient", ("ours/transform_steps.py", "plain_gradient"), 16),
    "dp_step": Work(
        "opacus", ("peers/torch_transforms.py", "dp_step"), 8, requires=("opacus", "sklearn")
    ),
    **{
        f"jacobian_{inputs}_{outputs}": Work(
            "best_mode",
            ("ours/transform_steps.py", f"best_mode_{inputs}_{outputs}"),
            1000,
            "µs/step",
        )
        for inputs, outputs in ((32, 2048), (2048, 32))
    },
}
"""Work -> the row; ours does it by ``ours/transform_steps.py <work>``."""


def comparisons(options: argparse.Namespace) -> list[contest.Comparison]:
    """A row for each work."""
    found: list[contest.Comparison] = []
    for name, work in WORKS.items():
        counts = ["--steps", "1" if options.quick else str(work.steps)]
        counts += ["--samples", "1" if options.quick else "5"]

        def contender(
            command: Sequence[str], requires: Sequence[str], counts: Sequence[str] = counts
        ) -> contest.Contender:
            script, *arguments = command
            return contest.Contender(
                [str(contest.HERE / script), *arguments, *counts],
                timing="printed",
                in_peer_python=bool(requires),
                requires=requires,
                environment={"XDG_CACHE_HOME": "{cache}"},
            )

        ours = contender(("ours/transform_steps.py", name), ())
        theirs = contender(work.script, work.requires)
        found.append(contest.Comparison(name, work.peer, work.unit, ours, theirs, facts=work.facts))
    return found + curvature_rows.comparisons(options.quick)


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__
    return contest.main(__doc__.splitlines()[0], comparisons, pairs=5, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
