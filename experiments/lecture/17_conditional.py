"""Example 17: a conditional in the graph: y = x w1 if z > 0, else x w2.

A compiled program cannot branch in Python on a number that it is given. ``lax.cond`` puts both
branches into one program, and runs the one; a Python ``if`` needs a program for each answer.

Command: ``python experiments/lecture/17_conditional.py``
"""

import argparse
import sys
from typing import Any

import classroom
import jax
import jax.numpy as jnp
import numpy as np

N, D, H = 3, 4, 5


def example(options: argparse.Namespace) -> classroom.Shown:
    random = np.random.default_rng(0)
    x = classroom.as_floats(random.standard_normal((N, D)))
    w1, w2 = (classroom.as_floats(random.standard_normal((D, H))) for _ in range(2))
    traces: list[str] = []

    @jax.jit
    def in_the_graph(z: Any, x: Any, w1: Any, w2: Any) -> Any:
        traces.append("cond")
        return jax.lax.cond(z > 0, lambda: x @ w1, lambda: x @ w2)

    def in_python(z: Any, x: Any, w1: Any, w2: Any) -> Any:
        traces.append("if")
        return x @ w1 if z > 0 else x @ w2

    refusal = "none"
    try:
        jax.jit(in_python)(jnp.float32(10), x, w1, w2)
    except jax.errors.TracerBoolConversionError as error:
        refusal = type(error).__name__
    traces.clear()
    static = jax.jit(in_python, static_argnums=0)
    expected = {z: np.asarray(x @ (w1 if z > 0 else w2)) for z in (10.0, -10.0)}
    found = {z: in_the_graph(jnp.float32(z), x, w1, w2) for z in expected}
    programs = traces.count("cond")
    for z in expected:
        static(z, x, w1, w2)
    slopes = jax.grad(
        lambda w1, w2: in_the_graph(jnp.float32(10), x, w1, w2).sum(), argnums=(0, 1)
    )(w1, w2)
    figures = {
        "y[0, 0] for z = 10": found[10.0][0, 0],
        "y[0, 0] for z = -10": found[-10.0][0, 0],
        "a Python if on a traced z raises": refusal,
        "programs with a Python if, z static": traces.count("if"),
    }
    claims = {
        "z = 10 takes w1, z = -10 takes w2": classroom.agree(found, expected),
        "a Python if cannot be traced": refusal == "TracerBoolConversionError",
        "with z static there is a program for each answer": traces.count("if") == 2,
        "w1 has its gradient, and w2, which was not used, none": classroom.agree(
            slopes[0], np.tile(np.asarray(x).sum(0)[:, None], (1, H))
        )
        and not np.asarray(slopes[1]).any(),
        "with cond one program has both": programs == 1,
    }
    return classroom.Shown(figures, claims)


if __name__ == "__main__":
    sys.exit(classroom.run(example))
