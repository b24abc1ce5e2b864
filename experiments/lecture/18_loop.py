"""Example 18: a loop in the graph: y_t = (y_(t-1) + x_t) w, for t = 1 … T.

Written as a Python loop it is unrolled: the program grows with T. ``lax.scan`` is one operation.

Command: ``python experiments/lecture/18_loop.py``
"""

import argparse
import sys
from typing import Any

import classroom
import jax
import numpy as np

T, D = 3, 4


def scanned(y0: Any, x: Any, w: Any) -> Any:
    """All y_t (T, D), by a scan."""

    def step(y: Any, x_t: Any) -> tuple[Any, Any]:
        y = (y + x_t) * w
        return y, y

    return jax.lax.scan(step, y0, x)[1]


def unrolled(y0: Any, x: Any, w: Any) -> Any:
    """The last y_t, by a Python loop."""
    y = y0
    for x_t in x:
        y = (y + x_t) * w
    return y


def operations(function: Any, *args: Any) -> int:
    """Equations in what is traced."""
    return len(jax.make_jaxpr(function)(*args).jaxpr.eqns)


def example(options: argparse.Namespace) -> classroom.Shown:
    random = np.random.default_rng(0)
    y0, w = random.standard_normal((2, D))
    x = random.standard_normal((T, D))
    # Worked out: y_T = y0 w^T + the sum over t of x_t w^(T - t + 1), and its slope in w.
    powers = np.arange(T, 0, -1)[:, None]
    last = y0 * w**T + np.sum(x * w**powers, 0)
    slope = T * y0 * w ** (T - 1) + np.sum(powers * x * w ** (powers - 1), 0)

    arguments = tuple(classroom.as_floats(each) for each in (y0, x, w))
    found = jax.jit(scanned)(*arguments)
    gradient = jax.grad(lambda y0, x, w: scanned(y0, x, w)[-1].sum(), argnums=2)(*arguments)
    long = (arguments[0], classroom.as_floats(random.standard_normal((100, D))), arguments[2])
    sizes = {
        name: [operations(function, *each) for each in (arguments, long)]
        for name, function in {"scan": scanned, "loop": unrolled}.items()
    }
    figures = {
        "y_T": np.asarray(found[-1]).round(4).tolist(),
        "operations of the scan, T = 3 and 100": sizes["scan"],
        "operations of the Python loop, T = 3 and 100": sizes["loop"],
    }
    claims = {
        "the scan gives what was worked out": classroom.agree(found[-1], last),
        "so does its gradient": classroom.agree(gradient, slope),
        "so does the Python loop": classroom.agree(unrolled(*arguments), last),
        "the scan does not grow with T": sizes["scan"][0] == sizes["scan"][1],
        "the Python loop does": sizes["loop"][1] > 10 * sizes["loop"][0],
    }
    return classroom.Shown(figures, claims)


if __name__ == "__main__":
    sys.exit(classroom.run(example))
