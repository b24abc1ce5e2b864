"""The training loop in steady state: ``fit`` with everything on against loops with nothing on.

Work ``digits_mlp``: 64-128-128-10 on scikit-learn's digits, Adam 1e-3, batches of 64. A sample is
a stretch of 20 epochs after one that does not count, in microseconds a step. Ours keeps metrics,
``metrics.jsonl``, TensorBoard events and checkpoints, and evaluates and saves once a stretch
(``ours/fit.py``); each peer trains in its own idiom with nothing of that (``peers/``):

- ``jax_jit_loop``: a hand-written loop over ``jax.jit``, in our own environment;
- ``keras``, ``keras_steps_per_execution``: Keras 3's ``fit`` on JAX, and with an epoch a dispatch;
- ``flax_nnx``, ``flax_nnx_cached_partial``, ``equinox``: their loops, as their guides write them;
- ``torch_eager``, ``lightning``: PyTorch on the CPU.

Work ``digits_cnn``: the net of the main job against a hand-written loop over our step (``ours/``).

Command: ``python experiments/benchmarks/loop.py --peer-python <python with the peers>``.
Expected on two cores, in about fifteen minutes: at most 0.90 × ``jax_jit_loop``, 0.55 × ``keras``,
0.75 × ``keras_steps_per_execution``, 0.20 × ``flax_nnx``, 0.12 × ``lightning``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import contest

UNIT = "µs/step"
STEPS_AN_EPOCH = "19"

PEERS = {
    "keras": ("keras_digits_mlp", ["keras", "jax", "sklearn"], []),
    "keras_steps_per_execution": (
        "keras_digits_mlp",
        ["keras", "jax", "sklearn"],
        ["--steps-per-execution", STEPS_AN_EPOCH],
    ),
    "flax_nnx": ("flax_nnx_digits_mlp", ["flax", "optax", "sklearn"], []),
    "flax_nnx_cached_partial": (
        "flax_nnx_digits_mlp",
        ["flax", "optax", "sklearn"],
        ["--cached-partial"],
    ),
    "equinox": ("equinox_digits_mlp", ["equinox", "optax", "sklearn"], []),
    "lightning": ("lightning_digits_mlp", ["lightning", "torch", "sklearn"], []),
    "torch_eager": ("torch_digits_mlp", ["torch", "sklearn"], []),
}
"""Peer -> its script, what has to be installed for it, its own arguments."""


def comparisons(options: argparse.Namespace) -> list[contest.Comparison]:
    """``fit`` against every peer."""
    counts = ["--epochs", "2", "--samples", "1"] if options.quick else []

    def ours(work: str) -> contest.Contender:
        script = str(contest.HERE / "ours" / "fit.py")
        return contest.Contender(
            [script, work, "{folder}/run", *counts],
            timing="printed",
            environment={
                "XDG_CACHE_HOME": "{cache}",
                "MPLCONFIGDIR": "{cache}/matplotlib",
            },
        )

    def peer(script: str, requires: Sequence[str], arguments: Sequence[str]) -> contest.Contender:
        return contest.Contender(
            [str(contest.HERE / "peers" / f"{script}.py"), *arguments, *counts],
            timing="printed",
            in_peer_python=True,
            requires=requires,
            environment={"KERAS_HOME": "{cache}/keras", "KERAS_BACKEND": "jax"},
        )

    by_hand = contest.Contender(
        [str(contest.HERE / "peers" / "jax_digits_mlp.py"), *counts],
        timing="printed",
        requires=["sklearn"],
    )
    steps = ["--steps", "4", "--samples", "1"] if options.quick else ["--steps", "394"]
    cnn_by_hand = contest.Contender(
        [str(contest.HERE / "ours" / "steps.py"), "digits_cnn", "jit_loop", *steps],
        timing="printed",
        environment={"XDG_CACHE_HOME": "{cache}"},
    )
    peers = {"jax_jit_loop": by_hand} | {name: peer(*what) for name, what in PEERS.items()}
    work = "digits_mlp"
    return [
        *(contest.Comparison(work, name, UNIT, ours(work), each) for name, each in peers.items()),
        contest.Comparison("digits_cnn", "jax_jit_loop", UNIT, ours("digits_cnn"), cnn_by_hand),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__
    return contest.main(__doc__.splitlines()[0], comparisons, pairs=9, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
