"""One function, run in several modes: what each costs, and how far its numbers move."""

from __future__ import annotations

import dataclasses
import difflib
import platform
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit.errors import UserError
from functorch_kit.program.comparison_table import Comparison, VariantResult
from functorch_kit.program.contestant import Contestant, one_line
from functorch_kit.program.cost import flops
from functorch_kit.program.difference import largest_difference
from functorch_kit.program.specs import argument_names, to_spec
from functorch_kit.program.timing import Timing
from functorch_kit.program.variants import VARIANTS, Arguments, Threading, as_written, make_variant
from functorch_kit.types import PyTree


class ComparisonError(UserError, ValueError):
    """A comparison cannot be made as asked; the message says what to change.

    Example:
        >>> import jax.numpy as jnp
        >>> try:
        ...     compare(jnp.sin, 1.0, variants=("jitt",))
        ... except ComparisonError as error:
        ...     print(error)
        variants: there is no 'jitt', did you mean 'jit'? (eager, disable_jit, jit, aot, scan)
    """


def compare(
    fn: Callable[..., Any],
    *args: PyTree,
    carry: int | None = None,
    steps: int = 10,
    variants: Sequence[str] = ("eager", "disable_jit", "jit", "aot", "scan"),
    scan_length: int = 10,
    rounds: int = 7,
    tolerance: float | None = None,
    seconds: float = 10.0,
    matmul_size: int = 2048,
) -> Comparison:
    """Run a pure function in several modes, time each, and compare their results.

    Every variant is warmed up and waited for; the variants take turns, round by round, so that a
    machine that slows down slows them all. ``args`` outlive the call: nothing is donated, and
    each run works on copies. A variant that fails becomes a row that says why.

    The modes are ``eager`` (JAX dispatches operation by operation), ``disable_jit`` (JAX's own
    functions, too, run as Python), ``jit``, ``aot`` (a ``Program``, compiled beforehand) and
    ``scan`` (a ``lax.scan`` of ``scan_length`` steps as one program, its time divided by them).

    Args:
        fn: a pure function of pytrees. Of a jitted function or a ``Program`` the Python function
            inside is taken; static arguments must be bound beforehand.
        *args: its arguments.
        carry: the output of ``fn``, or the first item of its output tuple, is ``args[carry]`` of
            the next call. Without it each call is made on the same arguments.
        steps: after how many calls the results are compared (one is enough without a carry).
        variants: which modes, in this order; the first is what the others are compared with.
        scan_length: steps in one ``scan``.
        rounds: how many samples to take of each variant.
        tolerance: the relative difference up to which results agree; None passes no judgement.
        seconds: time to spend on the samples of one variant, in s. A slow variant gets fewer than
            ``rounds`` samples, at least one; ``calls`` says how many calls were timed.
        matmul_size: rows of the float32 matrix product that rates are divided by.

    Returns:
        A row for each variant; ``print`` it for a table.

    Raises:
        ComparisonError: an unknown variant, a number out of range, or an output that cannot be
            carried.

    Example:
        >>> import jax.numpy as jnp
        >>> def step(w, x):
        ...     return w - 0.1 * x, (w * x).sum()
        >>> result = compare(step, jnp.ones(3), jnp.ones(3), carry=0, variants=("eager", "scan"),
        ...                  rounds=1, matmul_size=64)
        >>> [(row.name, row.error, row.max_relative_difference < 1e-6) for row in result.variants]
        [('eager', None, True), ('scan', None, True)]
    """
    _check(variants, len(args), carry, steps, scan_length, rounds)
    fn = as_written(fn)
    names = argument_names(fn, len(args))
    args = jax.tree.map(_on_device, args)
    threading = Threading(carry)
    _check_carry(fn, args, threading)

    contestants = [
        Contestant(name, make_variant(name, fn, threading, scan_length)) for name in variants
    ]
    for contestant in contestants:
        contestant.attempt(lambda each: each.warm_up(args, steps, names))
    # A contestant of its own, in every round: the machine is not equally busy in all.
    matmul = Contestant("matmul", make_variant("jit", jnp.matmul, Threading(None), 1))
    matrices = (jnp.ones((matmul_size, matmul_size), jnp.float32),) * 2
    matmul.warm_up(matrices, 1, ("one", "other"))
    for _ in range(rounds):
        matmul.sample(matrices)
        for contestant in contestants:
            if contestant.spent < seconds or not contestant.samples:
                contestant.attempt(lambda each: each.sample(args))

    # The fastest: a ceiling is not an average.
    ceiling = 2 * matmul_size**3 / min(matmul.samples) / 1e9
    operations = _flops(fn, args)
    reference = next((each for each in contestants if each.error is None), contestants[0])
    rows = [_row(each, reference, operations, ceiling) for each in contestants]
    return Comparison(
        variants=tuple(_judged(row, tolerance) for row in rows),
        reference=None if reference.error else reference.name,
        flops=operations,
        matmul_gflops=ceiling,
        steps=steps,
        scan_length=scan_length,
        tolerance=tolerance,
        warnings=tuple(filter(None, map(_impossible, rows))),
        environment=_environment(),
    )


def _row(
    each: Contestant, reference: Contestant, flops: int | None, ceiling: float
) -> VariantResult:
    if each.error is not None:
        return VariantResult(name=each.name, error=each.error)
    try:
        difference = largest_difference(reference.result, each.result)
    except ValueError as error:
        return VariantResult(name=each.name, error=one_line(error))
    timing = Timing.of(each.samples, each.calls)
    rate = None if flops is None else flops / timing.median / 1e9
    return VariantResult(
        name=each.name,
        compile_seconds=each.compile_seconds,
        first_call_seconds=each.first_call_seconds,
        median_seconds=timing.median,
        q25_seconds=timing.q25,
        q75_seconds=timing.q75,
        calls=timing.calls,
        speedup=float(np.median(reference.samples)) / timing.median,
        gflops=rate,
        matmul_share=None if rate is None else rate / ceiling,
        max_difference=difference.absolute,
        max_relative_difference=difference.relative,
        worst_leaf=difference.leaf,
    )


def _judged(row: VariantResult, tolerance: float | None) -> VariantResult:
    if tolerance is None or row.max_relative_difference is None:
        return row
    return dataclasses.replace(row, agrees=row.max_relative_difference <= tolerance)


def _impossible(row: VariantResult) -> str | None:
    if row.matmul_share is None or row.matmul_share <= 1:
        return None
    return (
        f"{row.name}: {row.gflops:.4g} GFLOP/s is {row.matmul_share:.0%} of the matrix product"
        " measured in the same run, which cannot be: an error in the measuring (was the machine"
        " busy?)"
    )


def _check(
    variants: Sequence[str],
    arguments: int,
    carry: int | None,
    steps: int,
    scan_length: int,
    rounds: int,
) -> None:
    if not variants:
        raise ComparisonError(f"variants is empty: give some of {', '.join(VARIANTS)}")
    for name in variants:
        if name not in VARIANTS:
            near = difflib.get_close_matches(name, VARIANTS, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ";"
            raise ComparisonError(f"variants: there is no {name!r}{hint} ({', '.join(VARIANTS)})")
    if len(set(variants)) < len(variants):
        raise ComparisonError(f"variants names one twice: {', '.join(variants)}")
    if carry is not None and not 0 <= carry < arguments:
        raise ComparisonError(
            f"carry is {carry}, but there are {arguments} arguments: give the position of one"
        )
    numbers = {"steps": steps, "scan_length": scan_length, "rounds": rounds}
    for name, number in numbers.items():
        if number < 1:
            raise ComparisonError(f"{name} is {number}: give a number from 1 up")


def _check_carry(fn: Callable[..., Any], args: Arguments, threading: Threading) -> None:
    if threading.carry is None:
        return
    try:
        output = jax.eval_shape(fn, *args)
    except Exception:  # the rows will say what is wrong with the function
        return
    complaint = threading.complaint(to_spec(args), output)
    if complaint is not None:
        raise ComparisonError(complaint)


def _flops(fn: Callable[..., Any], args: Arguments) -> int | None:
    try:
        return flops(fn, *args)
    except Exception:  # a function that cannot be traced still has its eager row
        return None


def _on_device(leaf: Any) -> Any:
    """NumPy arrays go to the device once, not at every timed call; numbers stay numbers."""
    return jax.device_put(leaf) if hasattr(leaf, "dtype") else leaf


def _environment() -> dict[str, str | int]:
    device = jax.devices()[0]
    return {
        "jax": jax.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
    }
