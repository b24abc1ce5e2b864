"""What a comparison found, as values, as plain JSON, and as a table of text."""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class VariantResult:
    """One row of a comparison; every measure is None where ``error`` is not.

    Attributes:
        name: the variant, such as ``scan=10+donate``, or the name of the ``Case``.
        error: why there is nothing to report, in one line; None if the variant ran.
        compile_seconds: time in XLA until the first result.
        first_call_seconds: the first call, with its result; for ``jit`` it holds tracing and
            compiling, which ``aot`` and ``scan`` have done before; for ``scan`` it is all steps.
        median_seconds: per step, over the samples.
        low_seconds: the true median is above this …
        high_seconds: … and below this, with a probability of 95 % from six samples on.
        q25_seconds: a quarter of the samples took less.
        q75_seconds: a quarter took more.
        calls: how many steps were timed.
        speedup: how many times faster than the reference.
        dispatch_seconds: until a lone call returned, the device being idle and nothing awaited:
            the host's part of a call. Where the backend runs a small program in the calling thread,
            as CPUs do, the work is in it.
        call_seconds: until the result of that call was there, ``dispatch_seconds`` included. A call
            of a ``scan`` is all its steps.
        gflops: GFLOP/s by the operations counted in the jaxpr of the function compared, whatever
            the variant does more (rematerialization, say).
        matmul_share: that rate as a share of a matrix product's, measured in the same run.
        peak_bytes: the most memory in use during a call, as the compiled program states it.
        measured_bytes: by how much the device's own peak rose in the first call; None where the
            device does not report it, or where an earlier variant needed more.
        compared_with: the row or the function that the result is compared with.
        compared_steps: after how many steps.
        max_difference: the largest absolute difference from the reference's result.
        max_relative_difference: the largest in units of the leaf's largest absolute value.
        worst_leaf: the leaf furthest away in units of its tolerance; None if nothing differs.
        leaf_difference: how far that is, in units of the leaf's largest absolute value.
        tolerance: how far it may be.
        agrees: whether every leaf is within its tolerance.
        diverges_at: of a result that does not agree: path of the first part of the model whose
            output is another beyond the dtype's tolerance; None if no part that is seen is.
        diverges_at_step: at which step that is, counted from 1: the first, or else the last one.
        faults: one line for each reason not to believe the row.
        red: whether it failed or has faults.
    """

    name: str
    error: str | None = None
    compile_seconds: float | None = None
    first_call_seconds: float | None = None
    median_seconds: float | None = None
    low_seconds: float | None = None
    high_seconds: float | None = None
    q25_seconds: float | None = None
    q75_seconds: float | None = None
    calls: int = 0
    speedup: float | None = None
    dispatch_seconds: float | None = None
    call_seconds: float | None = None
    gflops: float | None = None
    matmul_share: float | None = None
    peak_bytes: int | None = None
    measured_bytes: int | None = None
    compared_with: str | None = None
    compared_steps: int = 0
    max_difference: float | None = None
    max_relative_difference: float | None = None
    worst_leaf: str | None = None
    leaf_difference: float | None = None
    tolerance: float | None = None
    agrees: bool | None = None
    diverges_at: str | None = None
    diverges_at_step: int | None = None
    faults: tuple[str, ...] = ()
    red: bool = False


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The rows of a comparison, and what holds for all of them.

    Attributes:
        variants: a row each, in the order asked for.
        reference: the variant that the others are compared with: the first that ran.
        flops: floating-point operations of one step; None if they could not be counted.
        matmul_gflops: the ceiling that rates are divided by.
        steps: after how many steps results were compared.
        scan_length: steps in one ``scan``.
        tolerance: the relative difference up to which results agree, where one was given.
        rounding: dtype -> by how much one rounding of the arguments to that dtype moves the result
            after ``steps`` steps, in units of the leaf's scale: what no mode can be blamed for.
        warnings: one line for each fault of a row.
        environment: versions and device.
    """

    variants: tuple[VariantResult, ...]
    reference: str | None
    flops: int | None
    matmul_gflops: float
    steps: int
    scan_length: int
    tolerance: float | None
    rounding: dict[str, float]
    warnings: tuple[str, ...]
    environment: dict[str, str | int]

    def __getitem__(self, name: str) -> VariantResult:
        """The row of that name."""
        for row in self.variants:
            if row.name == name:
                return row
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, ready for JSON; an infinite difference is ``"inf"``."""
        return _plain(dataclasses.asdict(self))

    def __str__(self) -> str:
        """The table, its numbers right-aligned, a line for each warning below."""
        rows = [_HEADER, *(_cells(row) for row in self.variants if row.error is None)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = {row[0]: _aligned(row, widths) for row in rows}
        table = [lines[_HEADER[0]]]
        for row in self.variants:
            table.append(
                lines[row.name] if row.error is None else f"{row.name:<{widths[0]}}  {row.error}"
            )
        foot = f"ceiling: {self.matmul_gflops:.4g} GFLOP/s in a float32 matrix product"
        if self.flops is not None:
            foot = f"{self.flops:,} FLOPs a step; {foot}"
        layers = [
            f"{row.name}: {row.diverges_at} is the first part with another output, at step"
            f" {row.diverges_at_step}"
            for row in self.variants
            if row.diverges_at is not None
        ]
        return "\n".join([*table, foot, *(f"red: {line}" for line in self.warnings), *layers])


_HEADER = (
    "variant", "compile", "first call", "median", "95 % interval", "speed-up", "dispatch",
    "GFLOP/s", "of matmul", "memory", "largest", "verdict", "furthest leaf",
)  # fmt: skip


def _cells(row: VariantResult) -> tuple[str, ...]:
    return (
        row.name,
        _time(row.compile_seconds),
        _time(row.first_call_seconds),
        _time(row.median_seconds),
        f"{_time(row.low_seconds)} – {_time(row.high_seconds)}",
        _number(row.speedup, ".2f"),
        _time(row.dispatch_seconds),
        _number(row.gflops, ".3g"),
        _number(row.matmul_share, ".1%"),
        "–" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.3g} MB",
        _number(row.max_relative_difference, ".2g"),
        "RED" if row.red else "ok",
        _leaf(row),
    )


def _leaf(row: VariantResult) -> str:
    if row.worst_leaf is None or row.leaf_difference is None or row.tolerance is None:
        return "–"
    return f"{row.worst_leaf} {row.leaf_difference:.1e} of {row.tolerance:.1e}"


def _aligned(cells: tuple[str, ...], widths: list[int]) -> str:
    first, *middle, last = cells
    numbers = [cell.rjust(width) for cell, width in zip(middle, widths[1:-1], strict=True)]
    return "  ".join([first.ljust(widths[0]), *numbers, last]).rstrip()


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case float() if not math.isfinite(value):
            return str(value)  # JSON has no infinity
        case _:
            return value
