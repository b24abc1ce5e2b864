"""The main job, whole processes: ``experiments/train.py`` against a Keras 3 script of the same job.

Both train the same net on the same digits, 20 epochs in batches of 64, validate every epoch, keep
the best checkpoint and test it; see ``peers/keras_digits_cnn.py``. Ours also writes its log,
TensorBoard events, checkpoints and the report, as it does by default. What is timed is the second
run of a user who ran it before: the warm-up pair fills the caches.

Peer ``keras`` has JAX's persistent compilation cache switched on with the settings that ours has
by default (every program, however small or quick to compile), for Keras leaves it off. Peer
``keras_no_cache`` is what a plain Keras user gets; ``--peer-without-cache`` measures that one only.

Command: ``python experiments/benchmarks/main_job.py --peer-python <python with keras and jax>``.
Expected on two cores: ratio 0.7 or less, in about six minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

import contest

WORK = "digits_cnn_whole_process"
# Ours keeps its cache under XDG_CACHE_HOME, Keras its settings under KERAS_HOME: both in folders
# of this benchmark, so that neither finds or leaves anything in the user's home.
OURS = {"XDG_CACHE_HOME": "{cache}/ours", "MPLCONFIGDIR": "{cache}/ours/matplotlib"}
KERAS = {"KERAS_BACKEND": "jax", "KERAS_HOME": "{cache}/keras"}
JAX_CACHE = {
    "JAX_COMPILATION_CACHE_DIR": "{cache}/keras/xla",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def comparisons(options: argparse.Namespace) -> list[contest.Comparison]:
    """The job against Keras with and without JAX's compilation cache."""
    ours = contest.Contender(
        [*_ours_command(options.ours_script, options.quick), *options.ours_argument],
        environment=OURS,
        facts="" if options.ours_script else "{folder}/run/summary.json",
    )
    peers = {
        "keras": _keras(KERAS | JAX_CACHE, options.quick),
        "keras_no_cache": _keras({**KERAS, **dict.fromkeys(JAX_CACHE)}, options.quick),
    }
    if options.peer_without_cache:
        del peers["keras"]
    return [
        contest.Comparison(WORK, peer, "s", ours, theirs, facts=["test_accuracy"])
        for peer, theirs in peers.items()
    ]


def _ours_command(script: str | None, quick: bool) -> list[str]:
    if script:
        return [script]
    command = [str(contest.ROOT / "experiments" / "train.py"), "run_dir={folder}/run"]
    return [*command, "train.steps=40"] if quick else command


def _keras(environment: Mapping[str, str | None], quick: bool) -> contest.Contender:
    script = str(contest.HERE / "peers" / "keras_digits_cnn.py")
    return contest.Contender(
        [script, "{folder}/best.keras", "--epochs", "2" if quick else "20"],
        in_peer_python=True,
        requires=["keras", "jax", "sklearn"],
        environment=environment,
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--peer-without-cache", action="store_true", help="only Keras as a plain user gets it"
    )
    parser.add_argument("--ours-script", metavar="PATH", help="another script in train.py's place")
    parser.add_argument(
        "--ours-argument",
        action="append",
        default=[],
        metavar="ARG",
        help="one more argument for it, such as quiet=true; may be given again",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__
    return contest.main(
        __doc__.splitlines()[0], comparisons, pairs=9, options=add_options, arguments=arguments
    )


if __name__ == "__main__":
    sys.exit(main())
