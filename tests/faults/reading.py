"""Reads a pipeline through worker processes while something is done to one of them.

``python reading.py none|kill|stop|kill_all|poison|skip PATIENCE``; prints one line of JSON.
"""

import json
import os
import signal
import sys
import time

import jax
import numpy as np

from functorch_kit.data import (
    DataError,
    DecodedSource,
    InProcesses,
    RecordError,
    Shuffled,
    Streamed,
)

STEPS, RECORDS = 60, 97


class Record:
    """Record ``i`` holds the number ``i``; a poisoned one cannot be read."""

    def __init__(self, poisoned: int):
        self.poisoned = poisoned

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        if number == self.poisoned:
            raise RecordError("numbers", number, "it is poisoned")
        return {"x": np.full(50, number, np.float32)}


def main(fault: str, patience: float) -> None:
    spec = {"x": jax.ShapeDtypeStruct((50,), np.float32)}
    order = Shuffled(RECORDS, 8, seed=4)
    is_poisoned = fault in ("poison", "skip")
    poisoned = int(order.rows(20, 1)["index"][0, 3]) if is_poisoned else -1
    check = "skip" if fault == "skip" else "refuse"
    pipeline = Streamed(DecodedSource(RECORDS, Record(poisoned), spec), order, check)
    reader = InProcesses(pipeline, processes=2, patience=patience)
    seen: list[float] = []
    longest, said = 0.0, ""
    for step in range(STEPS):
        if step == 20 and not is_poisoned:
            alive = [worker for worker in reader._workers if worker.is_alive()]
            assert len(alive) == 2, "there are two workers to do something to"
            for worker in alive if fault == "kill_all" else alive[:1]:
                number = {"stop": signal.SIGSTOP, "none": 0}.get(fault, signal.SIGKILL)
                os.kill(worker.pid, number)
        began = time.monotonic()
        try:
            rows = reader.rows(step, 1)
            weight = rows.get("weight", np.ones((1, 8)))[0]
            # What stands in for the poisoned record has weight 0.
            seen += np.where(weight > 0, rows["x"][0, :, 0], poisoned).tolist()
        except DataError as error:
            said = str(error)
            break
        if step:  # the first waits for the workers to start
            longest = max(longest, time.monotonic() - began)
    expected = order.rows(0, STEPS)["index"].reshape(-1)[: len(seen)].tolist()
    left = reader._workers
    reader.close()
    for worker in left:
        worker.join(5)
    facts = {
        "same": seen == expected, "records": len(seen), "failures": reader.failures, "said": said,
        "skipped": sorted(reader.skipped), "poisoned": poisoned, "longest": longest,
        "alive": sum(worker.is_alive() for worker in left),
    }  # fmt: skip
    print(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
