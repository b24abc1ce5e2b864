"""Define once, run many times: a training step compiled ahead of time, which cannot retrace.

The program knows its shapes, what it costs and which libraries it calls; another shape is an error
that names the argument, not a second compilation.

Command: ``python experiments/lecture/define_once.py``
"""

import argparse
import sys
from typing import Any

import classroom
import jax

import functorch_kit as fk

STEPS = 100


def example(options: argparse.Namespace) -> classroom.Shown:
    x, y, weights = classroom.data_set("B")
    traces: list[int] = []

    def step(weights: Any, x: Any, y: Any) -> tuple[Any, Any]:
        traces.append(1)
        loss, slopes = jax.value_and_grad(classroom.loss_b)(weights, x, y)
        return classroom.moved(weights, slopes, 1e-6), loss

    program = fk.program.compile(step, weights, x, y, name="step", donate=(0,), carry=0)
    state = jax.tree.map(lambda weight: weight.copy(), weights)
    first = last = 0.0
    for number in range(STEPS):
        state, loss = program(state, x, y)
        first, last = (float(loss), 0.0) if number == 0 else (first, float(loss))
    try:
        program(state, x[:32], y)
        refusal = ""
    except fk.program.ProgramMismatch as error:
        refusal = str(error).splitlines()[0]
    figures = {
        "traced": f"{len(traces)} time, for {STEPS} steps",
        "operations of a step": program.report.flops,
        "compiling took, in s": program.report.compile_seconds,
        "memory handed on (donated)": ", ".join(program.report.donated) or "the backend hides it",
        "libraries that the program calls": fk.program.library_calls(program),
        "half a batch": refusal,
    }
    claims = {
        "the step was traced once": len(traces) == 1,
        "it trains": last < first / 10,
        "another shape is refused, and the argument named": "x" in refusal and "32" in refusal,
    }
    return classroom.Shown(figures, claims)


if __name__ == "__main__":
    sys.exit(classroom.run(example))
