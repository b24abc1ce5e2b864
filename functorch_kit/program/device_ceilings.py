"""What this machine reaches now, measured: the ceilings that rates are divided by."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from functorch_kit.program.device_peaks import arithmetic_of, peak_flops
from functorch_kit.program.timing import measure


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """The best rates of one device.

    Attributes:
        device: its name.
        platform: ``cpu``, ``gpu`` or ``tpu``.
        dtype: of the matrices.
        matmul_flops: FLOP/s of a large matrix product, measured.
        copy_bytes: bytes per second of reading and writing back a large array, measured.
        peak_flops: the vendor's figure for the arithmetic that the product runs in; None where it
            is not known, as for every CPU.
        arithmetic: what that is, such as ``tensorfloat32`` for float32 on a GPU.
        warnings: one line for each measurement that cannot be right.
    """

    device: str
    platform: str
    dtype: str
    matmul_flops: float
    copy_bytes: float
    peak_flops: float | None
    arithmetic: str
    warnings: tuple[str, ...] = ()


def ceilings(
    dtype: Any = jnp.float32,
    *,
    size: int | None = None,
    copy_size: int | None = None,
    rounds: int = 5,
) -> Ceilings:
    """Measure the default device: a matrix product of a dtype, and reading and writing memory.

    Args:
        dtype: of the matrices.
        size: their rows and columns; None takes the faster of 1024 and 2048 on a CPU, whose
            shorter product more easily finds a moment without disturbance, and 8192 elsewhere.
        copy_size: bytes that are read and written back; None takes 256 MB on a CPU, 1 GB
            elsewhere: more than caches hold.
        rounds: how often each is timed; the fastest counts, for a ceiling is not an average.

    Returns:
        The ceilings, with the vendor's figure beside them.

    Example:
        >>> found = ceilings(size=64, copy_size=4096, rounds=1)
        >>> found.dtype, found.matmul_flops > 0, found.copy_bytes > 0
        ('float32', True, True)
    """
    device = jax.devices()[0]
    on_cpu = device.platform == "cpu"
    sizes = (size,) if size else (1024, 2048) if on_cpu else (8192,)
    copy_size = copy_size or (256_000_000 if on_cpu else 1_000_000_000)
    rate = max(_product_rate(each, dtype, rounds) for each in sizes)
    arithmetic = arithmetic_of(dtype, device.platform, device.device_kind)
    peak = peak_flops(device.device_kind, arithmetic)
    return Ceilings(
        device=device.device_kind,
        platform=device.platform,
        dtype=jnp.dtype(dtype).name,
        matmul_flops=rate,
        copy_bytes=_copy_rate(copy_size, rounds),
        peak_flops=peak,
        arithmetic=arithmetic,
        warnings=tuple(
            above(rate, peak, "the matrix product", f"the vendor's {arithmetic} figure")
        ),
    )


def above(rate: float, ceiling: float | None, what: str, of: str) -> list[str]:
    """One line where a rate exceeds its ceiling, which is an error in the measuring.

    Example:
        >>> above(1.04, 1.0, "the step", "a matrix product's rate")
        ["the step comes out at 104 % of a matrix product's rate: an error in the measuring"]
        >>> above(0.5, 1.0, "the step", "the peak"), above(1.0, None, "the step", "the peak")
        ([], [])
    """
    if ceiling is None or rate <= ceiling:
        return []
    share = f"{100 * rate / ceiling:,.0f}"
    # 100.4 % must not be rounded to a harmless 100 %.
    share = "more than 100" if share == "100" else share
    return [f"{what} comes out at {share} % of {of}: an error in the measuring"]


def _product_rate(size: int, dtype: Any, rounds: int) -> float:
    matrix = jnp.ones((size, size), dtype)
    return 2 * size**3 / min(measure(jax.jit(jnp.matmul), matrix, matrix, rounds=rounds).samples)


def _copy_rate(size: int, rounds: int) -> float:
    # An addition runs on all threads where a plain copy may be one thread's memcpy, and moves as
    # much. In place: fresh memory for each result would measure the system's page faults.
    values = [jnp.ones((max(size // 4, 1),), jnp.float32)]
    size = values[0].nbytes
    add = jax.jit(lambda x: x + 1, donate_argnums=0)

    def move() -> jax.Array:
        values[0] = add(values[0])
        return values[0]

    return 2 * size / min(measure(move, rounds=rounds).samples)
