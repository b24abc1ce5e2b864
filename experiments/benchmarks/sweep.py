"""Many jobs at once: a multirun under ``hydra/launcher=lanes`` against the ways there were before.

Work ``spirals_64``: 8 learning rates × 8 seeds of ``experiment=spirals`` (an MLP 2-32-2, 100
points, 2,000 steps). ``digits_mlp_N`` and ``digits_cnn_N``: √N learning rates × √N seeds of the
jobs on the digits (20 epochs, batches of 64, Adam). Ours has everything on: each job has its
record, TensorBoard events, checkpoints and report. Its peers:

- ``hydra_basic_launcher``: the same command line without the launcher; both as whole processes;
- ``process_per_job``: a process of ``train.py`` for each job, one after another; likewise;
- ``sequential_one_program``: a hand-written loop over the jobs that reuses one compiled program,
  with everything off (``peers/jax_sequential.py``); both clocked inside a process that has its
  imports behind it (``ours/lanes.py``), compilation included. Works ``…_unwritten`` compare it with
  ours without run folders, which writes nothing either.

What is timed is the second sweep of a user who ran one before: the warm-up pair fills the caches.

Command: ``python experiments/benchmarks/sweep.py [--work spirals_64 --work digits_mlp_4 …]``.
The aim for ``spirals_64`` on two cores is 0.05 × ``hydra_basic_launcher`` and 1.0 ×
``sequential_one_program``. Measured were 0.18 × the former (6.1 against 31.7 s: the 64 runs share
what was made quicker for one), 1.46 × the latter, and 1.00 × where neither writes anything.
``spirals_64`` takes about twenty minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence

import contest

JOBS = {
    "spirals_64": 64,
    **{f"digits_mlp_{count}": count for count in (1, 4, 16, 64)},
    **{f"digits_cnn_{count}": count for count in (1, 4)},
}
"""Work -> number of jobs."""
BASE_RATE = {"spirals": 0.05, "digits_mlp": 5e-4, "digits_cnn": 5e-4}
CACHE = {"XDG_CACHE_HOME": "{cache}", "MPLCONFIGDIR": "{cache}/matplotlib"}


def grid(work: str) -> tuple[list[float], list[int]]:
    """The learning rates and the seeds of a work's jobs, each with each."""
    side = math.isqrt(JOBS[work])
    base = BASE_RATE[experiment(work)]
    return [round(base * (index + 1), 6) for index in range(side)], list(range(side))


def experiment(work: str) -> str:
    """The configuration in ``conf/experiment`` that a work's jobs have."""
    return work.rpartition("_")[0]


def comparisons(options: argparse.Namespace) -> list[contest.Comparison]:
    """Every work, every peer."""
    return [each for work in options.work or JOBS for each in _of(work, options.quick)]


def _of(work: str, is_quick: bool) -> list[contest.Comparison]:
    rates, seeds = grid(work)
    steps = ["train.steps=4"] if is_quick else []
    rate, seed = (",".join(map(str, each)) for each in (rates, seeds))
    command = [
        str(contest.ROOT / "experiments" / "train.py"),
        *("-m", f"experiment={experiment(work)}", f"optimizer.learning_rate={rate}"),
        *(f"seed={seed}", "run_dir={folder}/sweep", "quiet=true", *steps),
    ]
    one_by_one = contest.HERE / "ours" / "process_per_job.py"
    of_hand = ["--rates", rate, "--seeds", seed, *(["--steps", "4"] if is_quick else [])]
    scripts = [contest.HERE / "ours" / "lanes.py", contest.HERE / "peers" / "jax_sequential.py"]
    ours, by_hand = (
        contest.Contender(
            [str(script), experiment(work), *of_hand], timing="printed", environment=CACHE
        )
        for script in scripts
    )
    writing = dataclasses.replace(ours, command=[*ours.command, "--folder", "{folder}/sweep"])
    lanes, basic, processes = (
        contest.Contender(words, environment=CACHE)
        for words in (
            [*command, "hydra/launcher=lanes"],
            command,
            [str(one_by_one), experiment(work), *of_hand, "--folder", "{folder}"],
        )
    )
    found = [contest.Comparison(work, "hydra_basic_launcher", "s", lanes, basic)]
    if work == "spirals_64":
        found.append(contest.Comparison(work, "process_per_job", "s", lanes, processes))
    facts = ["how", "mean_loss"]
    peer = "sequential_one_program"
    return [
        *found,
        contest.Comparison(work, peer, "s", writing, by_hand, facts=facts),
        contest.Comparison(f"{work}_unwritten", peer, "s", ours, by_hand, facts=facts),
    ]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--work", action="append", choices=list(JOBS), help="this one alone; may be given again"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__
    return contest.main(
        __doc__.splitlines()[0], comparisons, pairs=3, options=add_options, arguments=arguments
    )


if __name__ == "__main__":
    sys.exit(main())
