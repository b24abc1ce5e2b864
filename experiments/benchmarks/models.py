"""Steps of whole models against PyTorch on the same cores.

Ours is ``ours/model_steps.py``, which says what each work is; the peers are
``peers/torch_model_steps.py``, run with the interpreter of ``--peer-python``:

- ``torch_eager``, and ``torch_compile``, which needs a C++ compiler;
- ``torch_channels_last``, of images alone.

Command: ``python experiments/benchmarks/models.py --peer-python <python with torch>``. Wanted on
two cores: at most 1.0 × ``torch_eager`` (of ResNet-18 ``torch_channels_last``) in every row.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import contest

UNIT = "ms/step"
STEPS = {"gpt_nano_step": 40, "resnet18_step": 2, "functorch_cnn_step": 20, "lstm_step": 4}
"""Steps in a sample, which lasts one or two seconds."""
OF_IMAGES = ("resnet18_step", "functorch_cnn_step")


def comparisons(options: argparse.Namespace) -> list[contest.Comparison]:
    """Every work against every way of PyTorch's that there is for it."""
    found: list[contest.Comparison] = []
    for work, steps in STEPS.items():
        counts = ["--steps", "1" if options.quick else str(steps)]
        counts += ["--samples", "1" if options.quick else "5"]
        ours = contest.Contender(
            [str(contest.HERE / "ours" / "model_steps.py"), work, *counts],
            timing="printed",
            environment={"XDG_CACHE_HOME": "{cache}"},
        )
        ways: dict[str, list[str]] = {"torch_eager": [], "torch_compile": ["--compile"]}
        if work in OF_IMAGES:
            ways["torch_channels_last"] = ["--channels-last"]
        script = str(contest.HERE / "peers" / "torch_model_steps.py")
        found += [
            contest.Comparison(
                work,
                peer,
                UNIT,
                ours,
                contest.Contender(
                    [script, work, *arguments, *counts],
                    timing="printed",
                    in_peer_python=True,
                    requires=["torch", "sklearn"],
                ),
            )
            for peer, arguments in ways.items()
        ]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__
    return contest.main(__doc__.splitlines()[0], comparisons, pairs=5, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
