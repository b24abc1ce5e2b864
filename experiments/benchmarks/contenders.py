"""Contenders from outside: the digits nets in other frameworks, each in a process of its own.

``compare.py contenders=[torch_eager,keras] peer_python=<python with the peers>`` lets them
alternate with our own loop, A B A B, on the net that is being compared. Only two nets have been
written in all of them, so only those can be asked for: the MLP and the CNN of the digits at their
default sizes, with Adam 1e-3, in batches of 64.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import contest

UNIT = "µs/step"

TUNED = {
    "torch_eager": "channels last where it convolves, a thread for each core",
    "torch_compiled": "as torch_eager, forward and loss under torch.compile",
    "keras": "fit on JAX, jit_compile=auto",
    "flax_nnx": "nnx.jit, bound once by nnx.cached_partial",
    "equinox": "eqx.filter_jit",
}
"""Contender -> how it was made to run well."""

_TORCH, _JAX = ["torch", "sklearn"], ["jax", "optax", "sklearn"]
_SCRIPTS: dict[str, dict[str, tuple[str, list[str], list[str]]]] = {
    "digits_mlp": {
        "torch_eager": ("torch_digits_mlp", _TORCH, []),
        "torch_compiled": ("torch_digits_mlp", _TORCH, ["--compile"]),
        "keras": ("keras_digits_mlp", ["keras", "jax", "sklearn"], []),
        "flax_nnx": ("flax_nnx_digits_mlp", ["flax", *_JAX], ["--cached-partial"]),
        "equinox": ("equinox_digits_mlp", ["equinox", *_JAX], []),
    },
    "digits_cnn": {
        "torch_eager": ("torch_digits_cnn_steps", _TORCH, []),
        "torch_compiled": ("torch_digits_cnn_steps", _TORCH, ["--compile"]),
        "keras": ("keras_digits_cnn_steps", ["keras", "jax", "sklearn"], []),
        "flax_nnx": ("flax_nnx_digits_cnn_steps", ["flax", *_JAX], []),
        "equinox": ("equinox_digits_cnn_steps", ["equinox", *_JAX], []),
    },
}
# A sample lasts about half a second where a step takes 0.2 and 5 ms.
_EPOCHS = {"digits_mlp": 100, "digits_cnn": 5}
_STEPS_AN_EPOCH = 19


def comparisons(
    work: str, names: Sequence[str], epochs: int | None = None
) -> list[contest.Comparison]:
    """Our loop against each contender.

    Args:
        work: ``digits_mlp`` or ``digits_cnn``.
        names: of ``TUNED``.
        epochs: in a sample; None for about half a second.
    """
    epochs = epochs or _EPOCHS[work]
    ours = contest.Contender(
        [
            str(contest.HERE / "ours" / "steps.py"),
            *(work, "auto", "--steps", str(epochs * _STEPS_AN_EPOCH), "--samples", "3"),
        ],
        timing="printed",
        environment={"XDG_CACHE_HOME": "{cache}"},
    )

    def theirs(script: str, requires: list[str], arguments: list[str]) -> contest.Contender:
        return contest.Contender(
            [
                str(contest.HERE / "peers" / f"{script}.py"),
                *(*arguments, "--epochs", str(epochs), "--samples", "3"),
            ],
            timing="printed",
            in_peer_python=True,
            requires=requires,
            environment={"KERAS_HOME": "{cache}/keras", "KERAS_BACKEND": "jax"},
        )

    return [
        contest.Comparison(work, name, UNIT, ours, theirs(*_SCRIPTS[work][name]), note=TUNED[name])
        for name in names
    ]


def compete(
    work: str,
    names: Sequence[str],
    *,
    peer_python: str | None,
    pairs: int,
    epochs: int | None = None,
) -> list[contest.Row]:
    """Let our loop and each contender alternate, in processes of their own.

    Args:
        work: see ``comparisons``.
        names: likewise.
        peer_python: the interpreter that has the contenders; None for this one.
        pairs: how many pairs count, after one that does not.
        epochs: see ``comparisons``.

    Returns:
        A row for each; one that is not installed is a row that says so.
    """
    pythons = contest.Pythons(sys.executable, peer_python or sys.executable)
    with tempfile.TemporaryDirectory(prefix="contenders-") as cache:
        return [
            contest.compete(each, pythons, pairs, Path(cache))
            for each in comparisons(work, names, epochs)
        ]
