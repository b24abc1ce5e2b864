"""Training steps that are differentiated through: adaptation to a task, and hypergradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from functorch_kit.transforms.errors import TransformError
from functorch_kit.types import Params, PyTree

MEMORY_POLICIES = ("keep", "remat", "truncated", "implicit")


class Adapted(NamedTuple):
    """What came of an inner loop.

    Attributes:
        params: after the last step.
        opt_state: the optimizer's.
        losses: (steps,) before each step.
    """

    params: Params
    opt_state: PyTree
    losses: Float[Array, " steps"]


def adapt(
    loss: Callable[[Params, PyTree], Float[Array, ""]],
    optimizer: optax.GradientTransformation | Callable[[Any], optax.GradientTransformation],
    steps: int,
    *,
    memory: str = "keep",
    last: int | None = None,
    first_order: bool = False,
    a_batch_each: bool = False,
    unroll: bool = False,
    solver_steps: int = 100,
) -> Callable[..., Adapted]:
    """Some steps of an optimizer as a function that can be differentiated.

    In what: the parameters it starts from (MAML, Finn, Abbeel and Levine, 2017), hyperparameters of
    the optimizer, and everything of the batch that is a float: weights of examples, regularisers,
    the data themselves. The result is an ordinary pure function: ``jax.vmap`` runs it over tasks.

    Args:
        loss: ``loss(params, batch) -> ()``.
        optimizer: of optax, or a function of the hyperparameters that returns one. Adam's square
            root has no second derivative at 0: ``optax.adam(..., eps_root=1e-8)``.
        steps: how many, from 1 up.
        memory: what is held for the way back. ``"keep"``: everything that each step computed.
            ``"remat"``: the state at about the square root of the steps, twice, and each step is
            computed again, once or twice: the same numbers (Griewank and Walther, 2000).
            ``"truncated"``: the ``last`` steps alone are differentiated, and what came before is a
            constant shift of the parameters (Shaban et al., 2019). ``"implicit"``: nothing; the
            result is taken for a minimum of the loss, where the derivative follows from the Hessian
            by conjugate gradients (Rajeswaran et al., 2019). It is as exact as the gradient is
            near 0 there, goes backwards only, and has no part from the start or the optimizer's
            hyperparameters: what regularises has to stand in the loss, through the batch.
        last: of ``"truncated"``: how many steps are differentiated.
        first_order: gradients of the inner loss are constants: no second derivatives
            (first-order MAML, of the same paper).
        a_batch_each: the batch's arrays have a first axis of ``steps``, a batch for each; else all
            steps take the same one.
        unroll: no loop in the program: longer to compile, and faster on XLA:CPU, which has no fast
            convolution inside a loop.
        solver_steps: of ``"implicit"``: conjugate gradient steps, at most.

    Returns:
        ``run(params, batch, hparams=None) -> Adapted``.

    Raises:
        TransformError: steps below 1, an unknown memory policy, or ``last`` without ``"truncated"``
            or outside 1 … steps; ``"implicit"`` with a batch for each step or first order.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> def loss(w, x):
        ...     return (w - x) ** 2 / 2
        >>> run = adapt(loss, lambda h: optax.sgd(h["learning_rate"]), steps=2)
        >>> def after(w, h):  # w (1 - a)^2 for x = 0
        ...     return run(w, 0.0, h).params
        >>> round(float(jax.grad(after)(1.0, {"learning_rate": 0.1})), 4)
        0.81
        >>> round(float(jax.grad(after, 1)(1.0, {"learning_rate": 0.1})["learning_rate"]), 4)
        -1.8
    """
    _check(steps, memory, last, first_order, a_batch_each)

    def stepper(hparams: Any) -> tuple[optax.GradientTransformation, Callable[..., Any]]:
        chosen = _optimizer(optimizer, hparams)

        def step(carried: tuple[Params, PyTree], batch: PyTree) -> tuple[Any, Array]:
            params, opt_state = carried
            value, gradient = jax.value_and_grad(loss)(params, batch)
            if first_order:
                gradient = lax.stop_gradient(gradient)
            updates, opt_state = chosen.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), value

        return chosen, step

    def run(params: Params, batch: PyTree, hparams: Any = None) -> Adapted:
        if a_batch_each:
            _check_stacked(batch, steps)
        # A loop's carry keeps its types, so a plain number begins as an array.
        params = jax.tree.map(jnp.asarray, params)
        if memory == "implicit":
            batch = jax.tree.map(jnp.asarray, batch)
            return _implicit(loss, stepper, steps, solver_steps)(params, batch, hparams)
        chosen, step = stepper(hparams)
        carried = (params, chosen.init(params))
        loop = _Loop(step, batch, a_batch_each, unroll)
        if memory == "truncated":
            carried, early = loop(carried, 0, steps - (last or steps))
            carried, early = lax.stop_gradient((carried, early))
            carried = (_shifted(params, carried[0]), carried[1])
            carried, late = loop(carried, steps - (last or steps), steps)
            return Adapted(carried[0], carried[1], jnp.concatenate([early, late]))
        if memory == "keep":
            carried, losses = loop(carried, 0, steps)
            return Adapted(carried[0], carried[1], losses)
        width = max(1, math.isqrt(steps))
        remat, found = _Loop(jax.checkpoint(step), batch, a_batch_each, unroll), []
        for start in range(0, steps, width):

            def segment(carried, start=start):
                return remat(carried, start, min(start + width, steps))

            carried, losses = jax.checkpoint(segment)(carried)
            found.append(losses)
        return Adapted(carried[0], carried[1], jnp.concatenate(found))

    return run


def hypergradient(
    objective: Callable[[PyTree], Float[Array, ""]], *, mode: str = "auto", forward_at_most: int = 4
) -> Callable[[PyTree], tuple[Float[Array, ""], PyTree]]:
    """Value and gradient of a result of training in its hyperparameters.

    Args:
        objective: ``objective(hparams) -> ()``: a validation loss, say, of what ``adapt`` returns.
        mode: ``"forward"`` carries a derivative for each hyperparameter along with the training
            (Franceschi et al., 2017): memory does not grow with the steps, time does with the
            hyperparameters. ``"reverse"`` goes back through it, under ``adapt``'s memory policy:
            time does not grow with the hyperparameters. Both are exact.
        forward_at_most: ``"auto"`` is forward up to so many numbers among the hyperparameters.

    Returns:
        ``hparams -> (value, gradient)``, of a pytree of floats.

    Raises:
        TransformError: an unknown mode.

    Example:
        >>> import optax
        >>> run = adapt(lambda w, x: (w - x) ** 2 / 2, lambda h: optax.sgd(h["rate"]), steps=3)
        >>> value, gradient = hypergradient(lambda h: run(1.0, 0.0, h).params)({"rate": 0.5})
        >>> value.item(), gradient["rate"].item()  # (1 - a)^3 and -3 (1 - a)^2
        (0.125, -0.75)
    """
    if mode not in ("auto", "forward", "reverse"):
        raise TransformError(f"hypergradient: mode {mode!r} is not 'auto', 'forward' or 'reverse'")

    def value_and_gradient(hparams: PyTree) -> tuple[Array, PyTree]:
        hparams = jax.tree.map(jnp.asarray, hparams)
        leaves, treedef = jax.tree.flatten(hparams)
        sizes = [leaf.size for leaf in leaves]
        if mode == "reverse" or (mode == "auto" and sum(sizes) > forward_at_most):
            return jax.value_and_grad(objective)(hparams)

        def along(index: Array) -> tuple[Array, Array]:
            """The derivative along one of the numbers."""
            at, tangents = 0, []
            for leaf, size in zip(leaves, sizes, strict=True):
                hot = jnp.arange(at, at + size) == index
                tangents.append(hot.astype(leaf.dtype).reshape(leaf.shape))
                at += size
            return jax.jvp(objective, (hparams,), (treedef.unflatten(tangents),))

        value, slopes = jax.vmap(along, out_axes=(None, 0))(jnp.arange(sum(sizes)))
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        parts = [
            slopes[end - size : end].reshape(leaf.shape).astype(leaf.dtype)
            for leaf, size, end in zip(leaves, sizes, ends, strict=True)
        ]
        return value, treedef.unflatten(parts)

    return value_and_gradient


class _Loop(NamedTuple):
    """Steps from one number to another, over one batch or the batches of these numbers."""

    step: Callable[..., Any]
    batch: PyTree
    a_batch_each: bool
    unroll: bool

    def __call__(self, carried: Any, start: int, stop: int) -> tuple[Any, Array]:
        count = stop - start
        unroll = max(count, 1) if self.unroll else 1
        if self.a_batch_each:
            batches = jax.tree.map(lambda leaf: leaf[start:stop], self.batch)
            return lax.scan(self.step, carried, batches, unroll=unroll)

        def step(carried: Any, _: None) -> tuple[Any, Array]:
            return self.step(carried, self.batch)

        return lax.scan(step, carried, length=count, unroll=unroll)


def _implicit(loss, stepper, steps: int, solver_steps: int) -> Callable[..., Adapted]:
    """The loop as a minimum of the loss, differentiated by the implicit function theorem."""

    @jax.custom_vjp
    def run(params: Params, batch: PyTree, hparams: Any) -> Adapted:
        chosen, step = stepper(hparams)
        carried, losses = _Loop(step, batch, False, False)((params, chosen.init(params)), 0, steps)
        return Adapted(carried[0], carried[1], losses)

    def forwards(params: Params, batch: PyTree, hparams: Any) -> tuple[Adapted, Any]:
        found = run(params, batch, hparams)
        return found, (found.params, batch)

    def backwards(kept: Any, slopes: Adapted) -> tuple[Any, Any, Any]:
        found, batch = kept

        def hessian(v: Params) -> Params:
            return jax.jvp(lambda params: jax.grad(loss)(params, batch), (found,), (v,))[1]

        precision = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(found))
        solved, _ = jax.scipy.sparse.linalg.cg(
            hessian, slopes.params, tol=10 * precision, maxiter=solver_steps
        )
        _, pull = jax.vjp(lambda batch: jax.grad(loss)(found, batch), batch)
        (of_batch,) = pull(jax.tree.map(jnp.negative, solved))
        return jax.tree.map(jnp.zeros_like, found), of_batch, None

    run.defvjp(forwards, backwards)
    return run


def _optimizer(optimizer: Any, hparams: Any) -> optax.GradientTransformation:
    if isinstance(optimizer, optax.GradientTransformation):
        if hparams is not None:
            raise TransformError(
                "adapt: hparams are given, but the optimizer is no function of them: pass"
                " lambda h: optax.sgd(h['learning_rate'])"
            )
        return optimizer
    return optimizer(hparams)


def _shifted(start: Params, later: Params) -> Params:
    """The later parameters, whose derivative in the start is 1."""
    return jax.tree.map(lambda a, b: a + lax.stop_gradient(b - a), start, later)


def _check(steps: int, memory: str, last: int | None, first_order: bool, each: bool) -> None:
    if steps < 1:
        raise TransformError(f"adapt: {steps} steps: give 1 or more")
    if memory not in MEMORY_POLICIES:
        raise TransformError(f"adapt: memory {memory!r} is not one of {', '.join(MEMORY_POLICIES)}")
    if (memory == "truncated") != (last is not None):
        raise TransformError("adapt: last goes with memory='truncated', and that with last")
    if last is not None and not 1 <= last <= steps:
        raise TransformError(f"adapt: last is {last}: give a number from 1 to {steps}")
    if memory == "implicit" and (first_order or each):
        raise TransformError(
            "adapt: memory='implicit' needs one batch and second derivatives: leave out"
            " first_order and a_batch_each"
        )


def _check_stacked(batch: PyTree, steps: int) -> None:
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)}
    if lengths != {(steps,)}:
        raise TransformError(
            f"adapt: the batch's arrays begin with {sorted(lengths)}: a_batch_each wants a first"
            f" axis of {steps}, the steps"
        )
