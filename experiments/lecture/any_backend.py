"""One setting for every backend: a training step lowered for four platforms on this machine.

``JAX_PLATFORMS=cpu`` or ``cuda`` in front of any command here chooses the device, and no line of a
model changes. What is lowered for all of them is one StableHLO module, which runs on whichever is
there.

Command: ``python experiments/lecture/any_backend.py``
"""

import argparse
import sys
from typing import Any

import classroom
import jax
from jax import export

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def step(weights: Any, x: Any, y: Any) -> Any:
    """New weights after a step on Set B."""
    return classroom.moved(weights, jax.grad(classroom.loss_b)(weights, x, y), 1e-6)


def example(options: argparse.Namespace) -> classroom.Shown:
    x, y, weights = classroom.data_set("B")
    portable = export.export(jax.jit(step), platforms=PLATFORMS)(weights, x, y)
    carried = portable.serialize()
    here = export.deserialize(carried).call(weights, x, y)
    figures = {
        "lowered for": ", ".join(portable.platforms),
        "bytes of the module": len(carried),
        "it ran here on": classroom.device(),
    }
    claims = {
        "one module holds all four platforms": set(portable.platforms) == set(PLATFORMS),
        "read back, it takes the same step": classroom.agree(here, step(weights, x, y)),
    }
    return classroom.Shown(figures, claims)


if __name__ == "__main__":
    sys.exit(classroom.run(example))
