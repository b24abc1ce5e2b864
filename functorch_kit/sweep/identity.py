"""What makes two jobs the same job: their settings, their program and their data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from functorch_kit import train
from functorch_kit.sweep.asked import Arguments
from functorch_kit.types import HParams

_FILE = "job.json"


def program_digest(arguments: Arguments) -> str:
    """SHA-256 of what a run computes: its train step and its start, as lowered programs.

    Jobs that share a program share it, so it is made once for a group.

    Example:
        >>> from functorch_kit.config import MLP, Config, build
        >>> one, other = (build(Config(model=MLP(hidden=(size,)))).fit_arguments()
        ...               for size in (8, 9))
        >>> program_digest(one) == program_digest(other)
        False
    """
    options, spec = arguments["options"], arguments["data"].train.spec
    values: HParams = train.as_hparams(arguments["hparams"], options.policy.params)
    init = train.make_init(arguments["model"], arguments["optimizer"], spec["x"], options)
    step = train.make_train_step(arguments["objective"], arguments["optimizer"], options)
    key = jax.random.key(0)
    lowered = jax.jit(init).lower(values, key)
    state = jax.eval_shape(init, values, key)
    texts = [lowered.as_text(), jax.jit(step).lower(values, state, spec).as_text()]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def content_digest(value: Any, known: dict[int, bytes] | None = None) -> str:
    """SHA-256 of plain data: arrays by dtype, shape and bytes, dataclasses by their fields.

    A value may have a method ``digest`` of its own, which returns what is to be digested.

    Args:
        value: the data.
        known: digests of what was digested before, by ``id``; filled. What is in it must live on.

    Example:
        >>> one, other = {"x": np.zeros(3)}, {"x": np.zeros(3, np.float32)}
        >>> content_digest(one) == content_digest({"x": np.zeros(3)})
        True
        >>> content_digest(one) == content_digest(other)
        False
    """
    found = hashlib.sha256()
    _add(found, value, {} if known is None else known)
    return found.hexdigest()


def identity(settings: Mapping[str, Any], program: str, data: str) -> str:
    """The name of a job: SHA-256 over its resolved settings, its program and its data.

    Example:
        >>> identity({"seed": 1}, "p", "d") == identity({"seed": 1}, "p", "d")
        True
        >>> identity({"seed": 1}, "p", "d") == identity({"seed": 2}, "p", "d")
        False
    """
    text = json.dumps([settings, program, data], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def known_jobs(folder: Path) -> dict[str, Path]:
    """Identity -> run folder of the jobs that a sweep's folder holds.

    Example:
        >>> known_jobs(Path("no/such/folder"))
        {}
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.glob(f"*/{_FILE}")):
        try:
            found[json.loads(path.read_text(encoding="utf-8"))["identity"]] = path.parent
        except (OSError, ValueError, LookupError, TypeError):
            continue  # not written by a sweep, or not whole: the job is run again
    return found


def mark(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write down which job a run folder is for.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> mark(folder / "0", {"identity": "abc"})
        >>> [path.name for path in known_jobs(folder).values()]
        ['0']
    """
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{_FILE}.part"
    draft.write_text(json.dumps(dict(facts), indent=2) + "\n", encoding="utf-8")
    draft.replace(folder / _FILE)


def _add(found: Any, value: Any, known: dict[int, bytes]) -> None:
    if hasattr(value, "digest") and callable(value.digest):
        if id(value) not in known:
            own = hashlib.sha256()
            _add(own, value.digest(), known)
            known[id(value)] = own.digest()
        found.update(known[id(value)])
    elif isinstance(value, np.ndarray | jax.Array):
        if id(value) not in known:
            array = np.ascontiguousarray(value)
            own = hashlib.sha256(f"{array.dtype}{array.shape}".encode())
            own.update(array.reshape(-1).view(np.uint8).data)
            known[id(value)] = own.digest()
        found.update(known[id(value)])
    elif isinstance(value, Mapping):
        for name in sorted(value, key=str):
            found.update(f"{name}:".encode())
            _add(found, value[name], known)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        found.update(type(value).__name__.encode())
        fields = dataclasses.fields(value)
        _add(found, {f.name: getattr(value, f.name) for f in fields}, known)
    elif isinstance(value, list | tuple):
        for each in value:
            _add(found, each, known)
            found.update(b",")
    else:
        found.update(repr(value).encode())
