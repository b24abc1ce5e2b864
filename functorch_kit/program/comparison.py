"""One function, run in several ways: what each costs, and how far its numbers move."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit.program.carrying import Arguments, Threading, as_written
from functorch_kit.program.case import Case
from functorch_kit.program.comparison_table import Comparison, VariantResult
from functorch_kit.program.contestant import Contestant, one_line
from functorch_kit.program.contests import Contest, Entry, on_device
from functorch_kit.program.cost import flops
from functorch_kit.program.difference import tolerance_of
from functorch_kit.program.specs import to_spec
from functorch_kit.program.switches import ComparisonError, Switches
from functorch_kit.program.timing import Timing
from functorch_kit.program.variants import make_variant
from functorch_kit.program.verdicts import Verdict
from functorch_kit.types import PyTree

VARIANTS = ("eager", "disable_jit", "jit", "aot", "scan")


def compare(
    fn: Callable[..., Any],
    *args: PyTree,
    carry: int | None = None,
    batch: int | None = None,
    steps: int = 10,
    variants: Sequence[str | Case] = VARIANTS,
    scan_length: int = 10,
    rounds: int = 7,
    tolerance: float | None = None,
    seconds: float = 10.0,
    matmul_size: int | None = None,
    progress: Callable[[str], object] = lambda line: None,
) -> Comparison:
    """Run a pure function in several ways, time each, and compare their results.

    Every variant is warmed up and waited for; the variants take turns, round by round, so that a
    machine that slows down slows them all. ``args`` outlive the call: each run works on copies. A
    variant that fails becomes a row that says why.

    A variant is one or more words joined by ``+``. At most one says how the function is executed:

    - ``eager``: JAX dispatches operation by operation;
    - ``disable_jit``: JAX's own functions, too, run as Python;
    - ``jit`` (also where no other is named);
    - ``aot``: a ``Program``, compiled beforehand;
    - ``scan`` or ``scan=<steps>``: a ``lax.scan`` of so many steps as one program, its time divided
      by them;
    - ``as_given``: the callable itself, with whatever is compiled and captured in it.

    The others combine: ``unroll`` (a scan's steps are written out, not looped over), ``donate``
    (the carry's memory may hold the result), ``vmap`` (over an axis of one), ``sharded=<devices>``
    (the batch is split), ``cold`` and ``warm`` (an empty compilation cache, and one that holds the
    program; without either word there is none). Where another function is to be compared, or the
    same with other arguments, a variant is a ``Case``.

    A row is red where it failed, where its result is not the reference's, or where its time cannot
    be true: the clock was stopped before the result was there, or the rate exceeds that of a
    matrix product in the same run. ``Case`` says what counts as another result.

    Args:
        fn: a pure function of pytrees. Of a jitted function or a ``Program`` the Python function
            inside is taken (but by ``as_given``); static arguments must be bound beforehand.
        *args: its arguments.
        carry: the output of ``fn``, or the first item of its output tuple, is ``args[carry]`` of
            the next call. Without it each call is made on the same arguments.
        batch: ``args[batch]`` is what ``sharded`` splits, along the first axis of each leaf.
        steps: after how many calls the results are compared (one is enough without a carry). A
            variant that would take longer than ``seconds`` for that is compared after its first
            call; ``compared_steps`` says so.
        variants: which, in this order; the first that runs is what the others are compared with.
        scan_length: steps in one ``scan`` that names no number.
        rounds: how many samples to take of each variant; six or more for an interval of 95 %.
        tolerance: the relative difference up to which results agree; None takes that of the dtype
            and of what one rounding of the arguments does, see ``Case``.
        seconds: time to spend on the samples of one variant, in s. A slow variant gets fewer than
            ``rounds`` samples, at least one; ``calls`` says how many calls were timed.
        matmul_size: rows of the matrix product that rates are divided by; None for 2048 on a CPU
            and 8192 elsewhere.
        progress: called with a line that says what begins; eager steps of a large model take long.

    Returns:
        A row for each variant; ``print`` it for a table.

    Raises:
        ComparisonError: an unknown variant, words that contradict each other, a number out of
            range, too few devices, or an output that cannot be carried.

    Example:
        >>> import jax.numpy as jnp
        >>> def step(w, x):
        ...     return w - 0.1 * x, (w * x).sum()
        >>> result = compare(step, jnp.ones(3), jnp.ones(3), carry=0, rounds=1, matmul_size=64,
        ...                  variants=("eager", "scan=5+donate"))
        >>> [(row.name, row.error, row.agrees) for row in result.variants]
        [('eager', None, True), ('scan=5+donate', None, True)]
    """
    _check(variants, len(args), carry, batch, steps, scan_length, rounds)
    cases = [each if isinstance(each, Case) else Case(each, how=each) for each in variants]
    args = jax.tree.map(on_device, args)
    _check_carry(as_written(fn), args, Threading(carry))
    contest = Contest(
        fn,
        args,
        carry=carry,
        batch=batch,
        steps=steps,
        scan_length=scan_length,
        seconds=seconds,
        tolerance=tolerance,
    )
    for case in cases:
        contest.enter(case)
    contest.warm_up(progress)
    progress(f"timing {len(cases)} variants in turn")
    ceilings = _take_turns(contest.entries, rounds, seconds, matmul_size)
    operations = _flops(as_written(fn), args)
    rows = [_row(contest, entry, operations, ceilings) for entry in contest.entries]
    return Comparison(
        variants=tuple(rows),
        reference=None if contest.reference is None else contest.reference.case.name,
        flops=operations,
        matmul_gflops=next(iter(ceilings.values())) / 1e9,
        steps=steps,
        scan_length=scan_length,
        tolerance=tolerance,
        rounding=contest.rounding,
        warnings=tuple(f"{row.name}: {line}" for row in rows for line in row.faults),
        environment=_environment(),
    )


def _take_turns(
    entries: Sequence[Entry], rounds: int, seconds: float, size: int | None
) -> dict[str, float]:
    """Sample all in turn, with a matrix product between; its FLOP/s by dtype."""
    on_cpu = jax.default_backend() == "cpu"
    size = size or (2048 if on_cpu else 8192)
    # A CPU multiplies half formats, if at all, more slowly than float32.
    dtypes = (
        ["float32"] if on_cpu else list(dict.fromkeys(["float32", *(e.dtype for e in entries)]))
    )
    # Contestants of their own, in every round: the machine is not equally busy in all.
    products = {
        dtype: Contestant(
            dtype,
            make_variant(Switches("jit"), jnp.matmul, Threading(None)),
            (jnp.ones((size, size), dtype),) * 2,
        )
        for dtype in dtypes
    }
    for product in products.values():
        product.warm_up()
    for _ in range(rounds):
        for product in products.values():
            product.sample()
        for entry in entries:
            contestant = entry.contestant
            if contestant.spent < seconds or not contestant.samples:
                contestant.attempt(Contestant.sample)
    # The fastest: a ceiling is not an average.
    return {dtype: 2 * size**3 / min(product.samples) for dtype, product in products.items()}


def _row(
    contest: Contest, entry: Entry, flops: int | None, ceilings: Mapping[str, float]
) -> VariantResult:
    each, case, reference = entry.contestant, entry.case, contest.reference
    verdict = None
    if each.error is None:
        try:
            verdict = contest.verdict(entry)
        except Exception as error:  # the perturbed run calls the user's function, too
            each.error = one_line(error)
    if verdict is None:
        return VariantResult(name=case.name, error=each.error, red=True)
    assert reference is not None
    assert entry.against is not None
    timing = Timing.of(each.samples, each.calls)
    devices = entry.switches.devices or 1
    rate = None if flops is None else flops / timing.median / 1e9
    # Virtual devices of a CPU share its cores, and with them its rate.
    ceiling = ceilings.get(entry.dtype, ceilings["float32"]) / 1e9
    ceiling *= 1 if jax.default_backend() == "cpu" else devices
    share = None if rate is None else rate / ceiling
    diverges = None if verdict.agrees else contest.diverges_at(entry, tolerance_of(entry.dtype))
    faults = [_other_result(verdict, entry.steps), each.not_waited, _impossible(rate, share)]
    said = tuple(fault for fault in faults if fault)
    lone, done = (float(np.median(column)) for column in zip(*each.lone_calls, strict=True))
    return VariantResult(
        name=case.name,
        compile_seconds=each.compile_seconds,
        first_call_seconds=each.first_call_seconds,
        median_seconds=timing.median,
        low_seconds=timing.low,
        high_seconds=timing.high,
        q25_seconds=timing.q25,
        q75_seconds=timing.q75,
        calls=timing.calls,
        speedup=float(np.median(reference.contestant.samples)) / timing.median,
        dispatch_seconds=lone,
        call_seconds=done,
        gflops=rate,
        matmul_share=share,
        peak_bytes=each.peak_bytes,
        measured_bytes=each.measured_bytes,
        compared_with=entry.against.case.name,
        compared_steps=entry.steps,
        max_difference=verdict.absolute,
        max_relative_difference=verdict.relative,
        worst_leaf=verdict.leaf,
        leaf_difference=verdict.leaf_relative,
        tolerance=verdict.tolerance,
        agrees=verdict.agrees,
        diverges_at=diverges and diverges[0],
        diverges_at_step=diverges and diverges[1],
        faults=said,
        red=bool(said),
    )


def _other_result(verdict: Verdict, steps: int) -> str | None:
    if verdict.agrees:
        return None
    after = "after one step" if steps == 1 else f"after {steps} steps"
    return (
        f"{verdict.leaf} is {verdict.leaf_relative:.2g} of its scale away from the reference's"
        f" {after}, and {verdict.tolerance:.2g} is allowed"
    )


def _impossible(rate: float | None, share: float | None) -> str | None:
    if share is None or share <= 1:
        return None
    return (
        f"{rate:.4g} GFLOP/s is {share:.0%} of the matrix product measured in the same run, which"
        " cannot be: an error in the measuring (is the result waited for? was the machine busy?)"
    )


def _check(
    variants: Sequence[str | Case],
    arguments: int,
    carry: int | None,
    batch: int | None,
    steps: int,
    scan_length: int,
    rounds: int,
) -> None:
    if not variants:
        raise ComparisonError(f"variants is empty: give some of {', '.join(VARIANTS)}")
    names = [each.name if isinstance(each, Case) else each for each in variants]
    if len(set(names)) < len(names):
        raise ComparisonError(f"variants names one twice: {', '.join(names)}")
    for name, position in {"carry": carry, "batch": batch}.items():
        if position is not None and not 0 <= position < arguments:
            raise ComparisonError(
                f"{name} is {position}, but there are {arguments} arguments: give the position of"
                " one"
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
