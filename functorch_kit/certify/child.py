"""One run of ``verify_resume``, in a process of its own: ``python -m … order.json``.

It trains, writes what every leaf of the state hashes to at each pause, and kills itself where it
was told to: SIGKILL, which nothing can catch, clean up after or wait for.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from functorch_kit.errors import UserError

_SECONDS_TO_PUBLISH = 300.0


def configured(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``fit`` that a configuration stands for, as a job for ``verify_resume``.

    Args:
        values: the configuration as plain values, see ``config.to_dict``.

    Example:
        >>> from functorch_kit import config
        >>> configured(config.to_dict(config.Config()))["steps"]
        394
    """
    from functorch_kit.config import build, from_dict

    return build(from_dict(dict(values))).fit_arguments()


def imported(job: str) -> Callable[..., Mapping[str, Any]]:
    """The function that ``module:function`` or ``file.py:function`` names.

    Example:
        >>> imported("functorch_kit.certify.child:configured").__name__
        'configured'
    """
    place, _, name = job.rpartition(":")
    try:
        if place.endswith(".py"):
            names: dict[str, Any] = runpy.run_path(place, run_name="<job>")
        else:
            names = vars(importlib.import_module(place))
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise UserError(f"job {job!r} cannot be imported: {error}") from error
    found: Any = names.get(name)
    if not callable(found):
        raise UserError(f"job {job!r}: there is no function {name!r} in {place!r}")
    return cast(Callable[..., Mapping[str, Any]], found)


def hashes(tree: Any, prefix: str = "") -> dict[str, str]:
    """Leaf path -> SHA-256 of its dtype, shape and bytes.

    Example:
        >>> import jax.numpy as jnp
        >>> found = hashes({"w": jnp.zeros(2), "step": jnp.int32(0)})
        >>> found["w"] == hashes({"w": jnp.zeros(2)})["w"], found["w"] == found["step"]
        (True, False)
    """
    import jax

    from functorch_kit.types import path_name

    found: dict[str, str] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        kind = f"{leaf.dtype}{leaf.shape}"
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        content = kind.encode() + np.asarray(leaf).tobytes()
        found[prefix + path_name(path)] = hashlib.sha256(content).hexdigest()
    return found


def run(order: Mapping[str, Any]) -> None:
    """Train as ordered, and leave the trace.

    Args:
        order: ``job``, ``arguments`` of it, ``changes`` to what it returns, ``trace`` (a file),
            and ``kill``: None, or the step and the moment.
    """
    from functorch_kit.checkpoint import Store
    from functorch_kit.checkpoint import read as read_checkpoint
    from functorch_kit.lane import Progress
    from functorch_kit.loop import fit

    arguments = dict(imported(order["job"])(**order["arguments"]))
    if missing := {"model", "objective", "optimizer", "data"} - arguments.keys():
        raise UserError(f"job {order['job']!r} returns no {min(missing)!r}: return fit's arguments")
    checkpoints = Path(order["changes"]["run_dir"]) / "checkpoints"
    with Path(order["trace"]).open("a", encoding="utf-8") as file:

        def trace(**facts: Any) -> None:
            file.write(json.dumps(facts) + "\n")
            file.flush()

        def watch(progress: Progress) -> None:
            trace(step=progress.step, leaves=hashes(progress.state))
            if order["kill"] is not None:
                _die(progress.step, checkpoints, **order["kill"])

        hooks = (*arguments.get("hooks", ()), watch)
        result = fit(**arguments | order["changes"] | {"hooks": hooks})
        store = Store(checkpoints)
        step = store.latest()
        meta = {} if step is None else read_checkpoint(store.folder / str(step)).meta
        facts = {f"checkpoint's {name}": value for name, value in meta.items()} | result.summary
        best = hashes((result.params, result.model_state), "best/")
        leaves = hashes(result.state) | best
        trace(step=result.summary["steps"], leaves=leaves, facts=_lasting(facts), device=_device())


def _die(step: int, checkpoints: Path, *, after: int, moment: str) -> None:
    if moment == "published" and step == after:
        ends = time.monotonic() + _SECONDS_TO_PUBLISH
        while not (checkpoints / str(after)).is_dir() and time.monotonic() < ends:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)
    # Where this pause is one that saves, its save has begun and is lost half-way.
    if moment == "between" and step > after:
        os.kill(os.getpid(), signal.SIGKILL)


def _lasting(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Without the times, which no two runs have in common."""
    return {
        name: value if isinstance(value, str | list | None) else repr(value)
        for name, value in facts.items()
        if "seconds" not in name
    }


def _device() -> dict[str, str]:
    import jax

    return {"platform": jax.default_backend(), "kind": jax.devices()[0].device_kind}


def main() -> None:
    """Carry out the order in the file that the command line names."""
    try:
        run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
