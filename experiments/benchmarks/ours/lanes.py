"""Seconds that ``sweep.run`` takes for a grid of jobs, with everything on.

Run folders with records, TensorBoard events, checkpoints and reports; building the jobs and
compiling them is part of it, importing JAX and this toolkit is not. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time

import jax

from functorch_kit import config, sweep


def job(experiment: str, rate: float, seed: int, steps: int | None) -> config.Config:
    """A job as ``conf/experiment`` has it."""
    if experiment == "spirals":
        made = config.Config(
            model=config.MLP(hidden=(32,)),
            data=config.Spirals(),
            optimizer=config.SGD(rate),
            train=config.Train(steps=2000, batch_size=100, eval_every=2000),
        )
    else:
        model = config.MLP() if experiment == "digits_mlp" else config.CNN()
        made = config.Config(model=model, optimizer=config.Adam(rate))
    made.seed, made.train.steps = seed, steps or made.train.steps
    return made


def parser(description: str) -> argparse.ArgumentParser:
    """The options of a sweep's contenders."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("experiment", choices=["spirals", "digits_mlp", "digits_cnn"])
    found.add_argument("--rates", default="0.1,0.2")
    found.add_argument("--seeds", default="0,1")
    found.add_argument("--steps", type=int, help="as the experiment has it if not given")
    found.add_argument("--folder", help="where jobs are written; nothing is if not given")
    return found


def main() -> None:
    assert __doc__
    chosen = parser(__doc__.splitlines()[0]).parse_args()
    rates, seeds = map(float, chosen.rates.split(",")), map(int, chosen.seeds.split(","))
    grid = itertools.product(rates, seeds)
    configs = [job(chosen.experiment, rate, seed, chosen.steps) for rate, seed in grid]
    jax.devices()  # the backend starts
    began = time.perf_counter()
    result = sweep.run(configs, chosen.folder, say=None)
    seconds = time.perf_counter() - began
    rows = [[row for row in each.rows() if row["split"] == "train"] for each in result.jobs]
    losses = [each[-1]["loss"] for each in rows if each]
    facts = {"how": result.groups[0].how, "mean_loss": math.fsum(losses) / max(1, len(losses))}
    print(json.dumps({"samples": [seconds], "unit": "s", **facts}))


if __name__ == "__main__":
    main()
