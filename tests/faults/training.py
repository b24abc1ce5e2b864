"""The run that every fault is done to, as a script: ``python training.py FOLDER [options]``.

About 10,000 parameters with dropout and BatchNorm, AdamW, shuffled digits, 200 steps, a checkpoint
every 10. It goes on with the run in the folder if there is one. Its last line is the SHA-256 of
everything that a resumed run must have in common with one that was never interrupted.
"""

import argparse
import hashlib
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

STEPS, INTERVAL = 200, 10


def oracle(state: Any, folder: Path) -> str:
    """SHA-256 over params, model_state, opt_state, key and the log of metrics."""
    import jax
    import numpy as np

    digest = hashlib.sha256()
    parts = (state.step, state.params, state.model_state, state.opt_state)
    for path, leaf in jax.tree_util.tree_leaves_with_path(parts):
        digest.update(f"{path}{leaf.shape}{leaf.dtype}".encode())
        digest.update(np.asarray(leaf).tobytes())
    digest.update(np.asarray(jax.random.key_data(state.key)).tobytes())
    digest.update((folder / "metrics.jsonl").read_bytes())
    return digest.hexdigest()


def train(folder: Path) -> Any:
    """Train to the end; the state there."""
    import optax

    import functorch_kit as fk

    model = fk.nn.serial(
        flat=fk.nn.flatten(),
        first=fk.nn.dense(96),
        norm=fk.nn.batch_norm(),
        act=fk.nn.relu,
        drop=fk.nn.dropout(0.2),
        second=fk.nn.dense(32),
        act2=fk.nn.relu,
        head=fk.nn.dense(10),
    )
    result = fk.fit(
        model,
        fk.train.classification(model),
        optimizer=optax.adamw(3e-3),
        data=fk.data.digits(batch_size=32, seed=3),
        steps=STEPS,
        seed=1,
        run_dir=folder,
        resume=folder.is_dir(),
        eval_every=INTERVAL,
        checkpoint_every=INTERVAL,
        log_every=1,
        quiet=True,
    )
    return result.state


def _instrument(options: argparse.Namespace) -> None:
    """Note each save that has returned, and bring about the fault that was asked for."""
    from functorch_kit.checkpoint import Store

    save = Store.save
    progress = os.open(options.progress, os.O_WRONLY | os.O_CREAT) if options.progress else None

    def noted(store: Any, step: int, *arguments: Any, **keywords: Any) -> None:
        if step == options.full_at:
            store.wait()  # the save before this one still had room
            # As on a full disk, writing fails half-way; without the signal that would end us.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
        save(store, step, *arguments, **keywords)
        if progress is not None:
            os.pwrite(progress, f"{step:8d}".encode(), 0)

    setattr(Store, "save", noted)  # noqa: B010 (another signature)


def main() -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--progress", type=Path, help="file for the step of the last save")
    parser.add_argument("--full-at", type=int, help="step from whose save on the disk is full")
    options = parser.parse_args()

    from functorch_kit.errors import UserError

    _instrument(options)
    try:
        state = train(options.folder)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    sys.stdout.write(f"{oracle(state, options.folder)}\n")


if __name__ == "__main__":
    main()
