"""Microseconds a step of ``fit`` on the digits, with everything on.

A run folder with ``metrics.jsonl``, TensorBoard events, checkpoints and the report; every tenth
step is logged, as is ``fit``'s default. One run of several stretches of 20 epochs; each stretch
ends with an evaluation and a checkpoint, and is a sample from one evaluation's end to the next's.
The first stretch, with everything before it, does not count. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from typing import Any

import optax

import functorch_kit as fk


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=["digits_mlp", "digits_cnn"])
    parser.add_argument("run_dir")
    parser.add_argument("--epochs", type=int, default=20, help="epochs in a sample")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--log-every", type=int, default=10)
    options = parser.parse_args()
    models = {
        "digits_mlp": lambda: fk.models.mlp(fk.models.MLPConfig()),
        "digits_cnn": lambda: fk.models.cnn(fk.models.CNNConfig()),
    }
    model = models[options.work]()
    data = fk.data.digits(batch_size=64)
    stretch = options.epochs * data.train.order.count // data.train.order.batch_size
    ends: list[float] = []

    def note_the_time(rows: Sequence[dict[str, Any]]) -> bool:
        ends.append(time.perf_counter())
        return False

    result = fk.fit(
        model,
        fk.train.classification(model),
        optimizer=lambda h: optax.adam(h["learning_rate"]),
        hparams={"learning_rate": 1e-3},
        data=data,
        steps=stretch * (options.samples + 1),
        run_dir=options.run_dir,
        eval_every=stretch,
        log_every=options.log_every,
        stop=note_the_time,
        quiet=True,
    )
    samples = [(b - a) / stretch * 1e6 for a, b in itertools.pairwise(ends)]
    form = result.programs["form"]
    print(json.dumps({"samples": samples, "unit": "µs/step", "form": form}))


if __name__ == "__main__":
    main()
