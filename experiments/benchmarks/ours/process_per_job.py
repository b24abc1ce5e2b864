"""A grid of jobs as processes of ``train.py``, one after another, as a shell loop starts them."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import lanes

EXPERIMENTS = Path(__file__).parents[2]


def main() -> None:
    assert __doc__
    chosen = lanes.parser(__doc__.splitlines()[0]).parse_args()
    for rate, seed in itertools.product(chosen.rates.split(","), chosen.seeds.split(",")):
        words = [f"experiment={chosen.experiment}", f"optimizer.learning_rate={rate}"]
        words += [f"seed={seed}", f"run_dir={chosen.folder}/{rate}-{seed}", "quiet=true"]
        words += [f"train.steps={chosen.steps}"] if chosen.steps else []
        subprocess.run([sys.executable, str(EXPERIMENTS / "train.py"), *words], check=True)


if __name__ == "__main__":
    main()
