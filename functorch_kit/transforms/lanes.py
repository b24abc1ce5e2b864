"""Whether a function of many examples at once is that function of each: and if not, where not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit.transforms.backward import batch_size
from functorch_kit.transforms.branches import selects_in
from functorch_kit.transforms.errors import TransformError
from functorch_kit.transforms.flat import Flat, Step, execute, trace
from functorch_kit.types import PyTree

_LIBRARY = str(Path(jax.__file__).parent)


@dataclasses.dataclass(frozen=True)
class LaneFinding:
    """One operation that does not do to many examples what it does to each.

    Attributes:
        primitive: JAX's name of the operation.
        where: the named part and the line that it stands in, as far as they are known.
        what: what happens.
    """

    primitive: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.primitive}{f' ({self.where})' if self.where else ''}: {self.what}"


@dataclasses.dataclass(frozen=True)
class LaneReport:
    """What ``check_lanes`` found; as text, a line for each finding.

    Attributes:
        differences: the operations that give examples other values side by side than alone.
        selects: each ``cond`` and ``while`` that no longer branches or stops for one example.
    """

    differences: tuple[LaneFinding, ...]
    selects: tuple[LaneFinding, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, (*self.differences, *self.selects))) or "side by side as alone"


def check_lanes(
    f: Callable[..., Any], batch: PyTree, *, batched: bool = False, tolerance: float | None = None
) -> LaneReport:
    """Compare ``jax.vmap(f)(batch)`` with a loop over the examples, operation by operation.

    Each operation is given what the loop computed, once for all examples and once for each, so that
    one that differs is named, and not what follows from it (of a batched function, the first that
    differs, and each that makes one value of all examples). Found are, among others: statistics
    over the batch (BatchNorm in training), generators of random numbers that do not draw lane by
    lane (``rbg``), ``custom_vmap`` rules that are not the function, and a ``cond`` or ``while``
    whose condition depends on the example: side by side both branches run, and a loop runs for all
    until the last is done, also where a gradient of the branch not taken is NaN.

    Args:
        f: of one example; or, with ``batched``, of a whole batch.
        batch: arrays with the examples as a first axis, of at least two examples.
        batched: whether f takes the batch as it is, as a model does. It is then traced for batches
            of all examples and of one.
        tolerance: the largest difference between two values that count as the same, in units of
            the larger of 1 and the values' scale; what rounding explains if None.

    Returns:
        A report; no differences in it means that the two are the same for this batch.

    Raises:
        TransformError: fewer than two examples, leaves of different sizes, or a batched function
            that does other things with a batch of one.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import transforms
        >>> centred = lambda x: x - jnp.mean(x, 0, keepdims=True)
        >>> print(transforms.check_lanes(centred, jnp.arange(6.0).reshape(3, 2), batched=True))
        reduce_sum ...: adds over the examples
        >>> branch = lambda x: jax.lax.cond(x > 0, jnp.log, lambda x: x, x)
        >>> report = transforms.check_lanes(branch, jnp.array([1.0, -1.0]))
        >>> [found.primitive for found in report.selects], report.differences
        (['cond'], ())
    """
    size = batch_size(batch)
    if size < 2:
        raise TransformError(f"check_lanes: a batch of {size}: give two examples or more")
    if batched:
        return LaneReport(tuple(_batched(f, batch, size, tolerance)), ())
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), batch)
    flat, _ = trace(f, one)
    differences = _side_by_side(flat, jax.tree.leaves(batch), size, tolerance)
    selects = [
        LaneFinding(
            step.name,
            _where(step),
            f"it became a select: its condition depends on the example, so {what}",
        )
        for step, what in selects_in(flat)
    ]
    return LaneReport(tuple(differences), tuple(selects))


def _side_by_side(
    flat: Flat, leaves: Sequence[Any], size: int, tolerance: float | None
) -> list[LaneFinding]:
    """Every step for all examples by ``jax.vmap``, and for each; the loop's values go on."""
    lanes = [dict(flat.constants) for _ in range(size)]
    for lane, known in enumerate(lanes):
        known.update(zip(flat.inputs, [leaf[lane] for leaf in leaves], strict=True))
    varies = set(flat.inputs)
    found: list[LaneFinding] = []
    for step in flat.steps:
        alone = [execute(step, [known[number] for number in step.inputs]) for known in lanes]
        for known, results in zip(lanes, alone, strict=True):
            known.update(zip(step.outputs, results, strict=True))
        if varies.isdisjoint(step.inputs):
            continue
        varies.update(step.outputs)
        axes = [0 if number in varies else None for number in step.inputs]
        operands = [
            _stacked([known[number] for known in lanes]) if axis == 0 else lanes[0][number]
            for number, axis in zip(step.inputs, axes, strict=True)
        ]
        together = jax.vmap(lambda *operands, step=step: execute(step, operands), axes)(*operands)
        for at, result in enumerate(together):
            away = _difference(result, _stacked([results[at] for results in alone]), tolerance)
            if away is not None:
                found.append(LaneFinding(step.name, _where(step), _told(step.name, away)))
                break
    return found


def _batched(
    f: Callable[..., Any], batch: PyTree, size: int, tolerance: float | None
) -> list[LaneFinding]:
    """Every step of a batch of all, against the same step of batches of one."""
    single = jax.tree.map(lambda leaf: leaf[:1], batch)
    whole, _ = trace(f, batch)
    alone, _ = trace(f, single)
    if [step.name for step in whole.steps] != [step.name for step in alone.steps]:
        pairs = zip(whole.steps, alone.steps, strict=False)
        other = next((step for step, small in pairs if step.name != small.name), whole.steps[-1])
        raise TransformError(
            f"check_lanes: with a batch of one the function goes another way from {other.name}"
            f" {_where(other)} on: give a function of one example, without batched=True"
        )
    leaves = jax.tree.leaves(batch)
    lanes = []
    for lane in range(size):
        values = [leaf[lane : lane + 1] for leaf in leaves]
        lanes.append({**alone.constants, **dict(zip(alone.inputs, values, strict=True))})
    # By number: along which axis the examples lie; None where they are not told apart.
    axes: dict[int, int | None] = dict.fromkeys(whole.inputs, 0)
    known = {**whole.constants, **dict(zip(whole.inputs, leaves, strict=True))}
    found: list[LaneFinding] = []
    for step, small in zip(whole.steps, alone.steps, strict=True):
        results = [execute(small, [own[number] for number in small.inputs]) for own in lanes]
        for own, result in zip(lanes, results, strict=True):
            own.update(zip(small.outputs, result, strict=True))
        together = execute(step, [known[number] for number in step.inputs])
        known.update(zip(step.outputs, together, strict=True))
        of_batch = any(number in axes for number in step.inputs)
        for at, (number, value) in enumerate(zip(step.outputs, together, strict=True)):
            each = [result[at] for result in results]
            axis = _example_axis(value, each[0], size)
            if axis is None and not of_batch and _difference(value, each[0], tolerance) is None:
                continue  # a constant of the function
            if axis is None:
                gone = any(axes.get(number) is not None for number in step.inputs)
                if gone and any(_difference(value, one, tolerance) is not None for one in each):
                    told = _over_examples(step.name)
                    found.append(LaneFinding(step.name, _where(step), told))
            else:
                merged = jnp.concatenate(each, axis) if not _is_key(value) else None
                away = None if merged is None else _difference(value, merged, tolerance)
                if away is not None and not found:
                    found.append(LaneFinding(step.name, _where(step), _told(step.name, away)))
            axes[number] = axis
    return found


def _told(primitive: str, away: float) -> str:
    if primitive.startswith(("random_", "rng_", "threefry")):
        return "it draws other random numbers side by side than one by one"
    return f"side by side it differs by {away:.3g} from one by one"


def _over_examples(primitive: str) -> str:
    verbs = {
        "reduce_sum": "adds over the examples",
        "reduce_max": "takes the largest of the examples",
        "reduce_min": "takes the smallest of the examples",
        "dot_general": "multiplies examples with each other",
    }
    return verbs.get(primitive, "makes one value of all examples")


def _example_axis(value: Any, one: Any, size: int) -> int | None:
    """The axis along which a batch's value is longer than that of a batch of one."""
    shape, small = jnp.shape(value), jnp.shape(one)
    if len(shape) != len(small):
        return None
    longer = [axis for axis in range(len(shape)) if shape[axis] != small[axis]]
    return longer[0] if len(longer) == 1 and shape[longer[0]] == size * small[longer[0]] else None


def _where(step: Step) -> str:
    """``hidden, model.py:31``: the part, and the innermost line that is not JAX's own."""
    traceback = step.eqn.source_info.traceback
    for frame in [] if traceback is None else traceback.frames:
        if not frame.file_name.startswith(_LIBRARY):
            place = f"{Path(frame.file_name).name}:{frame.line_num}"
            return f"{step.scope}, {place}" if step.scope else place
    return step.scope


def _difference(got: Any, expected: Any, tolerance: float | None) -> float | None:
    """By how much two values differ, in units of their scale; None if by no more than allowed."""
    if _is_key(got):
        got, expected = jax.random.key_data(got), jax.random.key_data(expected)
    is_inexact = jnp.issubdtype(jnp.result_type(got), jnp.inexact)
    kind = np.complex128 if jnp.iscomplexobj(got) else np.float64
    one, other = np.asarray(got).astype(kind), np.asarray(expected).astype(kind)
    if not is_inexact:
        return None if np.array_equal(one, other) else float(np.max(np.abs(one - other)))
    if tolerance is None:  # sums in another order, of some thousand terms
        tolerance = 1e3 * float(jnp.finfo(jnp.result_type(got)).eps)
    if not np.array_equal(np.isnan(one), np.isnan(other)):
        return float("nan")
    finite = np.isfinite(one) & np.isfinite(other)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return float("inf")
    away = float(np.max(np.abs(one - other)[finite], initial=0.0))
    scale = max(1.0, float(np.max(np.abs(other)[finite], initial=0.0)))
    return None if away <= tolerance * scale else away


def _stacked(values: list[Any]) -> Any:
    return jnp.stack(values)


def _is_key(value: Any) -> bool:
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
