"""How fast a program could be, and how fast it is: MFU and the roofline."""

from __future__ import annotations

import dataclasses
from typing import Any

from functorch_kit.errors import UserError
from functorch_kit.program.device_ceilings import Ceilings, above, ceilings
from functorch_kit.program.executable import Program
from functorch_kit.program.memory_traffic import bytes_moved


@dataclasses.dataclass(frozen=True)
class Utilization:
    """A rate as shares of what the device could do.

    Attributes:
        flops_per_second: the rate, of one device.
        of_peak: MFU: its share of the vendor's figure; None where that is not known, or where it
            exceeds 1, which ``warnings`` says.
        of_matmul: its share of the matrix product's rate, measured in the same run; None likewise.
        warnings: one line for each share above 100 %.
    """

    flops_per_second: float
    of_peak: float | None
    of_matmul: float | None
    warnings: tuple[str, ...]


def utilization(
    flops: float, seconds: float, measured: Ceilings, *, devices: int = 1
) -> Utilization:
    """Divide a program's rate by what its device could reach.

    Args:
        flops: floating-point operations of a step, all devices together.
        seconds: wall time of a step.
        measured: the ceilings, measured in the same run and for the dtype that the step multiplies.
        devices: how many devices shared the step.

    Returns:
        The rate and its shares; a share above 100 % is an error in the measuring, so it is said
        and not given.

    Example:
        >>> h100 = Ceilings("NVIDIA H100", "gpu", "bfloat16", 700e12, 3e12, 989e12, "bfloat16")
        >>> utilization(350e12, 1.0, h100).of_matmul
        0.5
        >>> utilization(728e12, 1.0, h100).warnings
        ("the step comes out at 104 % of a matrix product's rate: an error in the measuring",)
    """
    rate = flops / seconds / devices
    peak, product = measured.peak_flops, measured.matmul_flops
    warnings = [
        *above(rate, peak, "the step", f"the vendor's {measured.arithmetic} figure"),
        *above(rate, product, "the step", "a matrix product's rate"),
    ]
    return Utilization(
        flops_per_second=rate,
        of_peak=None if peak is None or rate > peak else rate / peak,
        of_matmul=None if rate > product else rate / product,
        warnings=(*warnings, *measured.warnings),
    )


@dataclasses.dataclass(frozen=True)
class Roofline:
    """What bounds a program: arithmetic, or memory.

    Attributes:
        name: the program's name.
        flops: operations of a step.
        bytes: memory traffic of a step, see ``bytes_moved``: what every operation reads and writes,
            whether or not a cache holds it.
        seconds: wall time of a step.
        measured: the ceilings.
        utilization: the rate, and its shares.
        warnings: one line for each number that cannot be right.
    """

    name: str
    flops: float
    bytes: float
    seconds: float
    measured: Ceilings
    utilization: Utilization
    warnings: tuple[str, ...] = ()

    @property
    def intensity(self) -> float:
        """FLOPs per byte."""
        return self.flops / self.bytes

    @property
    def ridge(self) -> float:
        """The intensity from which on arithmetic is the bound."""
        return self.measured.matmul_flops / self.measured.copy_bytes

    @property
    def bound(self) -> str:
        """``memory`` or ``arithmetic``."""
        return "memory" if self.intensity < self.ridge else "arithmetic"

    @property
    def attainable_flops(self) -> float:
        """FLOP/s under the roof, at this intensity."""
        return min(self.measured.matmul_flops, self.intensity * self.measured.copy_bytes)

    @property
    def of_attainable(self) -> float | None:
        """The share of it that is reached; None where it exceeds 1, which ``warnings`` says."""
        share = self.utilization.flops_per_second / self.attainable_flops
        return None if share > 1 else share

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, ready for JSON."""
        plain = dataclasses.asdict(self)
        for group in (plain, plain["measured"], plain["utilization"]):
            group["warnings"] = list(group["warnings"])
        return plain | {
            "intensity": self.intensity,
            "ridge": self.ridge,
            "bound": self.bound,
            "attainable_flops": self.attainable_flops,
            "of_attainable": self.of_attainable,
        }


class RooflineError(UserError, ValueError):
    """There are no FLOPs or no bytes to divide.

    Example:
        >>> issubclass(RooflineError, ValueError)
        True
    """


def roofline(
    program: Program, seconds: float, *, measured: Ceilings | None = None, devices: int = 1
) -> Roofline:
    """Place a compiled program under the roof that the machine's own rates make.

    Args:
        program: the program, for its FLOPs and its bytes.
        seconds: wall time of one call, measured in the same run.
        measured: the ceilings; None measures them now, in float32.
        devices: how many devices shared the call.

    Returns:
        The arithmetic intensity, the bound it implies, and how near the program comes to it.

    Raises:
        RooflineError: the program has no floating-point operation, or the backend counts no bytes.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import program
        >>> add = program.compile(lambda x: x + 1, jnp.zeros(1024), name="add")
        >>> laptop = Ceilings("cpu", "cpu", "float32", 100e9, 20e9, None, "float32")
        >>> found = roofline(add, 1e-3, measured=laptop)
        >>> found.bound, found.intensity, found.ridge  # one addition, 4 bytes in, 4 out
        ('memory', 0.125, 5.0)
    """
    flops, traffic = program.report.flops, bytes_moved(program)
    if not flops or not traffic:
        what = "no floating-point operation" if not flops else "no count of the bytes it moves"
        raise RooflineError(f"program {program.name!r} has {what}: a roofline needs both")
    measured = measured or ceilings()
    used = utilization(flops, seconds, measured, devices=devices)
    found = Roofline(program.name, flops / devices, traffic, seconds, measured, used)
    warnings = list(used.warnings)
    if found.of_attainable is None and found.bound == "memory":
        share = used.flops_per_second / found.attainable_flops
        warnings.append(
            f"the step comes out at {100 * share:,.0f} % of the memory roof: an error in the"
            " measuring: the bytes are counted as if no cache held any of them"
        )
    return dataclasses.replace(found, warnings=tuple(warnings))
