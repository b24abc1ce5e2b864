"""Milliseconds a step of the small GPT in ``fit``, with a checkpoint every so many steps.

nanoGPT's recipe for one CPU: 4 layers, 4 heads, 128 wide, context 64, batches of 12, AdamW. A
sample is a stretch from one evaluation's end to the next evaluation's begin; the first stretch does
not count. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import optax

import functorch_kit as fk


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir")
    parser.add_argument("--every", type=int, default=0, help="steps between checkpoints; 0: none")
    parser.add_argument("--steps", type=int, default=100, help="steps in a sample")
    parser.add_argument("--samples", type=int, default=3)
    chosen = parser.parse_args()
    data = fk.data.text(batch_size=12, context=64)
    data = data._replace(validation=None)  # nothing but steps and saves between two marks
    assert data.vocabulary
    model = fk.models.gpt(fk.models.GPTConfig(vocabulary=len(data.vocabulary), context=64))
    ends: list[float] = []

    def mark(progress: fk.Progress) -> None:
        if progress.step % chosen.steps == 0:
            ends.append(time.perf_counter())

    result = fk.fit(
        model,
        fk.train.language_model(model),
        optimizer=optax.adamw(1e-3),
        data=data,
        steps=chosen.steps * (chosen.samples + 1),
        run_dir=chosen.run_dir,
        eval_every=chosen.steps,
        checkpoint_every=chosen.every or chosen.steps * (chosen.samples + 1),
        hooks=[mark],
        quiet=True,
    )
    samples = [(b - a) / chosen.steps * 1e3 for a, b in itertools.pairwise(ends)]
    assert result.run_dir
    folders = sorted(Path(result.run_dir, "checkpoints").glob("*"))
    size = sum(file.stat().st_size for file in folders[-1].rglob("*") if file.is_file())
    print(json.dumps({"samples": samples, "unit": "ms/step", "checkpoint_bytes": size}))


if __name__ == "__main__":
    main()
