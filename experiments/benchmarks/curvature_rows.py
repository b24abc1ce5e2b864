"""The rows of ``transforms.py`` that are of curvature and kernels.

``hessian_vector`` and ``gauss_newton_vector`` of ResNet-18 on 32 images of 32 × 32, against one
``gradient`` and against ``curvlinops``; ``ntk`` of the CNN of functorch's tutorial against
``neural_tangents``. Ours is ``ours/curvature_steps.py``, which says more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import contest

UNIT = "ms/step"


class Row(NamedTuple):
    """One comparison.

    Attributes:
        work: what is done, by ``ours/curvature_steps.py <work>``.
        peer: by whom else.
        command: the peer's script, below this folder, and its arguments.
        steps: in a sample, which lasts about a second.
        requires: what has to be installed where the peers are; empty if it runs where ours does.
    """

    work: str
    peer: str
    command: Sequence[str]
    steps: int
    requires: Sequence[str] = ()


_CURVLINOPS = ("torch", "curvlinops", "sklearn")
_TANGENTS = ("peers/neural_tangents_kernel.py", "ntk")
_GRADIENT = ("ours/curvature_steps.py", "gradient")
ROWS = [
    row
    for work in ("hessian_vector", "gauss_newton_vector")
    for row in (
        Row(work, "gradient", _GRADIENT, 2),
        Row(work, "curvlinops", ("peers/curvlinops_products.py", work), 2, _CURVLINOPS),
    )
] + [
    Row("ntk", "neural_tangents", _TANGENTS, 2, ("jax", "neural_tangents")),
]


def comparisons(is_quick: bool) -> list[contest.Comparison]:
    """A comparison for each row.

    Args:
        is_quick: whether the counts are tiny.
    """

    def contender(command: Sequence[str], steps: int, requires: Sequence[str]):
        script, *arguments = command
        counts = ["--steps", str(1 if is_quick else steps)]
        counts += ["--samples", "1" if is_quick else "5"]
        return contest.Contender(
            [str(contest.HERE / script), *arguments, *counts],
            timing="printed",
            in_peer_python=bool(requires),
            requires=requires,
            environment={"XDG_CACHE_HOME": "{cache}"},
        )

    return [
        contest.Comparison(
            row.work,
            row.peer,
            UNIT,
            contender(("ours/curvature_steps.py", row.work), row.steps, ()),
            contender(row.command, row.steps, row.requires),
        )
        for row in ROWS
    ]
