"""The form in which a run's steps are dispatched, settled before anything is compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.extend import core as jex_core

from functorch_kit import program
from functorch_kit.errors import UserError
from functorch_kit.types import Batch, HParams

# XLA:CPU runs a convolution inside a loop without its fast kernels: digits CNN, batch 64, two
# cores, ms a step alone and in a loop: 7.1 and 202 on jax 0.10.2, 5.1 and 229 on jax 0.12.
_SLOW_IN_A_CPU_LOOP = {"conv_general_dilated"}


class Form(NamedTuple):
    """How steps are dispatched: ``chunk`` (many in one program) or ``single`` (one at a time).

    The forms may round differently, so a run keeps to one.

    Attributes:
        name: ``"chunk"`` or ``"single"``.
        reason: why, for the report.

    Example:
        >>> Form("chunk", "asked for").name
        'chunk'
    """

    name: str
    reason: str


def choose_form(
    train_step: Callable[..., Any], hparams: HParams, state: Any, batch: Batch, wanted: str = "auto"
) -> Form:
    """The form for a step, from its own operations and the default backend.

    Args:
        train_step: the pure step.
        hparams: hyperparameters, arrays or specs.
        state: the TrainState, arrays or specs.
        batch: one batch, arrays or specs.
        wanted: ``"auto"``, or a form that is taken as it is.

    Raises:
        UserError: another word than auto, chunk or single, or a step that branches in Python on
            a hyperparameter.

    Example:
        >>> import jax.numpy as jnp
        >>> step = lambda hparams, state, batch: (state, jnp.dot(batch["x"], batch["x"]))
        >>> choose_form(step, {}, (), {"x": jnp.ones(2)}).name
        'chunk'
    """
    if wanted in ("chunk", "single"):
        return Form(wanted, "asked for")
    if wanted != "auto":
        raise UserError(f"form {wanted!r} is not one of auto, chunk, single")
    backend = jax.default_backend()
    if backend != "cpu":
        return Form("chunk", f"loops cost nothing on {backend}")
    specs = (hparams, state, batch)
    with program.tracing("train_step", ("hparams", "state", "batch"), specs):
        jaxpr = jax.make_jaxpr(train_step)(*specs)
    if found := _slow_operations(jaxpr):
        return Form("single", f"{', '.join(found)} is slow inside a loop on a CPU")
    return Form("chunk", "every operation of the step runs at full speed inside a loop")


def slow_in_a_loop(function: Callable[..., Any], *args: Any) -> bool:
    """Whether a function has operations that the default backend runs slowly inside a loop.

    Example:
        >>> import jax.numpy as jnp
        >>> slow_in_a_loop(jnp.dot, jnp.ones(3), jnp.ones(3))
        False
    """
    if jax.default_backend() != "cpu":
        return False
    return bool(_slow_operations(jax.make_jaxpr(function)(*args)))


def _slow_operations(jaxpr: jex_core.ClosedJaxpr) -> list[str]:
    return sorted(_SLOW_IN_A_CPU_LOOP & set(_primitives(jaxpr.jaxpr)))


def _primitives(jaxpr: jex_core.Jaxpr) -> Iterator[str]:
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda leaf: isinstance(leaf, jex_core.Jaxpr | jex_core.ClosedJaxpr),
        ):
            if isinstance(value, jex_core.ClosedJaxpr):
                yield from _primitives(value.jaxpr)
            elif isinstance(value, jex_core.Jaxpr):
                yield from _primitives(value)
