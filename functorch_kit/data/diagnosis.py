"""What a run says of its input: how it came, how fast it could, and what to change."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

_SHARE = 0.05
_ADVICE = {
    "order": "give larger batches: finding the records' numbers takes longer than reading them",
    "read": "read from a faster disk, or keep the data in memory (data.arrays, data.npz)",
    "decode": (
        "decode once and save arrays (data.npy), or read in worker processes (data.InProcesses)"
    ),
    "check": "set check='off' for data that are known to be sound",
    "transfer": "send bytes and make floats of them on the device (data.scaled)",
}


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """How a run got its input.

    Attributes:
        mode: how blocks of rows were made, see ``Feed``.
        reason: why in that way.
        wait_share: of the run's time, how much it waited for input, from 0 to 1.
        records_per_second: the pipeline's own rate, were it alone.
        stages: share of each stage in the making: order, read or decode, check, transfer.
        slowest_stage: the one with the largest share.
        is_input_bound: whether the run waited more than a twentieth of its time, and was long
            enough to tell.
        advice: what to change if so; empty otherwise.
        skipped_records: bad records that were skipped, each counted once.

    Example:
        >>> found = diagnosed(mode="prefetch", reason="", blocks=9, records=100,
        ...                   seconds={"read": 3.0, "transfer": 1.0}, making_seconds=4.0,
        ...                   wait_seconds=1.0, compute_seconds=3.0)
        >>> found.wait_share, found.records_per_second, found.slowest_stage, found.is_input_bound
        (0.25, 25.0, 'read', True)
    """

    mode: str
    reason: str
    wait_share: float
    records_per_second: float
    stages: dict[str, float]
    slowest_stage: str
    is_input_bound: bool
    advice: str
    skipped_records: int

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, ready for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        text = f"input {self.mode} ({self.reason}), waited for {100 * self.wait_share:.1f} %"
        if self.is_input_bound:
            text += f": most of it is {self.slowest_stage}; {self.advice}"
        return text


def diagnosed(
    *,
    mode: str,
    reason: str,
    blocks: int,
    records: int,
    seconds: Mapping[str, float],
    making_seconds: float,
    wait_seconds: float,
    compute_seconds: float,
    decodes: bool = False,
    processes: int = 0,
    skipped: int = 0,
) -> Diagnosis:
    """What measurements say.

    Args:
        mode: how blocks were made.
        reason: why.
        blocks: of rows that were made. The first is always waited for, so that a run of one or two
            says nothing.
        records: in them.
        seconds: by stage.
        making_seconds: from the first stage's begin to the last one's end, threads side by side.
        wait_seconds: while the device had nothing to do for want of input.
        compute_seconds: while it had.
        decodes: whether reading is decoding.
        processes: worker processes that read.
        skipped: records that were skipped.

    Example:
        >>> diagnosed(mode="resident", reason="", blocks=0, records=0, seconds={},
        ...           making_seconds=0.0, wait_seconds=0.0, compute_seconds=1.0).advice
        ''
    """
    named = {("decode" if decodes and k == "read" else k): v for k, v in seconds.items() if v > 0}
    total = sum(named.values())
    stages = {name: value / total for name, value in named.items()}
    slowest = max(stages, key=lambda name: stages[name]) if stages else ""
    whole = wait_seconds + compute_seconds
    share = wait_seconds / whole if whole > 0 else 0.0
    bound = share > _SHARE and blocks > 2
    rate = records / making_seconds if making_seconds > 0 else 0.0
    advice = _ADVICE.get(slowest, "") if bound else ""
    if advice and processes and slowest in ("read", "decode"):
        advice = "decode once and save arrays (data.npy), or give more worker processes"
    return Diagnosis(mode, reason, share, rate, stages, slowest, bound, advice, skipped)
