"""Steps of whole models against PyTorch on the same cores.

Ours is ``ours/model_steps.py``, which says what each work is; the peers are
``peers/torch_model_steps.py``, run with the interpreter of ``--peer-python``:

- ``torch_eager``, and ``torch_compile``, which needs a C++ compiler;
- ``torch_channels_last``, of images alone.

Work ``gpt_repeat_compile``: compiling the step of a GPT whose 24 layers are one block, repeated,
against ``4_layers`` of it (``ours/compile_time.py``).

Command: ``python experiments/benchmarks/models.py --peer-python <python with torch>``. Wanted on
two cores: at most 1.0 × ``torch_eager`` (of ResNet-18 ``torch_channels_last``) in every step, and
0.5 × ``torch_eager`` for a token that is generated, 1.3 × ``4_layers``. Measured on jax 0.10.2: the
GPT's step 0.90, ResNet-18 1.28, functorch's CNN 1.04, the LSTM 1.55, a token 1.27, compiling 0.98.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import contest

STEPS = {
    "gpt_nano_step": 40,
    "resnet18_step": 2,
    "functorch_cnn_step": 20,
    "lstm_step": 4,
    "gpt_nano_generate": 960,
}
"""Steps in a sample, which lasts one or two seconds; tokens, where there is one in a step."""
A_TEXT = 48
OF_IMAGES = ("resnet18_step", "functorch_cnn_step")


def comparisons(options: argparse.Namespace) -> list[contest.Comparison]:
    """Every work against every way of PyTorch's that there is for it."""
    found: list[contest.Comparison] = []
    for work, steps in STEPS.items():
        is_text = work == "gpt_nano_generate"
        counts = ["--steps", str(A_TEXT if is_text else 1) if options.quick else str(steps)]
        counts += ["--samples", "1" if options.quick else "5"]
        ours = contest.Contender(
            [str(contest.HERE / "ours" / "model_steps.py"), work, *counts],
            timing="printed",
            environment={"XDG_CACHE_HOME": "{cache}"},
        )
        ways: dict[str, list[str]] = {"torch_eager": []}
        if not is_text:
            ways["torch_compile"] = ["--compile"]
        if work in OF_IMAGES:
            ways["torch_channels_last"] = ["--channels-last"]
        script = str(contest.HERE / "peers" / "torch_model_steps.py")
        found += [
            contest.Comparison(
                work,
                peer,
                "ms/token" if is_text else "ms/step",
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
    few = ["--samples", "1" if options.quick else "3"]
    deep, shallow = (
        contest.Contender(
            [str(contest.HERE / "ours" / "compile_time.py"), str(layers), *few], timing="printed"
        )
        for layers in (24, 4)
    )
    return [*found, contest.Comparison("gpt_repeat_compile", "4_layers", "s", deep, shallow)]


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__
    return contest.main(__doc__.splitlines()[0], comparisons, pairs=5, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
