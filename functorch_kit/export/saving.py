"""Artifacts written: a folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from functorch_kit import __version__, safetensors
from functorch_kit.data import Inputs
from functorch_kit.export import manifest as manifests
from functorch_kit.export.errors import ArtifactError
from functorch_kit.export.manifest import File, Leaf, Manifest
from functorch_kit.export.program import PLATFORMS, flat, leaves, make_program
from functorch_kit.types import Model, ModelState, Params, Spec

MOST_DAYS = 180
"""JAX keeps reading what it serialised for six months."""
_OURS = {manifests.NAME, manifests.TOKENIZER}.union(*manifests.FORMATS.values())


def save(
    folder: str | Path,
    model: Model,
    params: Params,
    model_state: ModelState,
    x_spec: Spec,
    *,
    gradients: int = 0,
    batch: int | None = None,
    platforms: Sequence[str] = PLATFORMS,
    days: int = MOST_DAYS,
    overwrite: bool = False,
    **facts: Any,
) -> Manifest:
    """Write a model as a program: ``load`` makes a function of it that needs no model code.

    What is exported is what the model computes in evaluation: nothing is dropped out, statistics
    stay as they are.

    Args:
        folder: to be made: it must not be there yet.
        model: any Model.
        params: its parameters.
        model_state: its state.
        x_spec: shape and dtype of a batch: an array's, or a dict's of such.
        gradients: orders of derivatives to carry along, for training the artifact further.
        batch: records in every batch; None: any number.
        platforms: that the program is lowered for.
        days: until it expires; 180 at most, as JAX promises to read it for six months.
        overwrite: whether an artifact may be there, which is then lost.
        **facts: of the manifest: ``records`` (a ``data.Inputs``), ``task``, ``classes``,
            ``vocabulary`` (a ``data.Vocabulary``), ``source``.

    Returns:
        The manifest.

    Raises:
        ArtifactError: the model cannot be lowered so, or the folder not be written.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> from functorch_kit.export import load
        >>> model, x = nn.dense(2), jnp.ones((4, 3))
        >>> params, state = model.init(jax.random.key(0), x)
        >>> folder = Path(tempfile.mkdtemp()) / "dense"
        >>> save(folder, model, params, state, x).platforms
        ('cpu', 'cuda', 'tpu')
        >>> bool(jnp.allclose(load(folder)(x), model.apply(params, state, x)[0]))
        True
    """
    if not 1 <= days <= MOST_DAYS:
        raise ArtifactError(f"days is {days}: give a number from 1 to {MOST_DAYS}")
    with _published(Path(folder), overwrite) as draft:
        made = make_program(
            model, params, model_state, x_spec,
            gradients=gradients, batch=batch, platforms=platforms,
        )  # fmt: skip
        (draft / manifests.PROGRAM).write_bytes(made.content)
        write_params(draft / manifests.PARAMS, params, model_state)
        return _finished(
            draft,
            "stablehlo",
            made.inputs,
            made.outputs,
            facts,
            expires=(_today() + datetime.timedelta(days)).isoformat(),
            platforms=tuple(platforms),
            gradients=gradients,
            calling_convention=made.calling_convention,
        )


def save_params(
    folder: str | Path,
    params: Params,
    model_state: ModelState,
    *,
    inputs: Spec,
    outputs: Spec,
    overwrite: bool = False,
    **facts: Any,
) -> Manifest:
    """Write parameters alone, under their addresses, as one safetensors file.

    Args:
        folder: to be made.
        params: named ``params/…`` in the file.
        model_state: named ``model_state/…``.
        inputs: shape and dtype of what goes into the model, for the manifest.
        outputs: likewise of what comes out.
        overwrite: whether an artifact may be there, which is then lost.
        **facts: see ``save``.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "weights"
        >>> _ = save_params(folder, {"w": np.ones(2)}, (), inputs=np.ones(1), outputs=np.ones(1))
        >>> sorted(path.name for path in folder.iterdir())
        ['manifest.json', 'params.safetensors']
    """
    with _published(Path(folder), overwrite) as draft:
        write_params(draft / manifests.PARAMS, params, model_state)
        given, made = leaves("x", inputs), leaves("y", outputs)
        return _finished(draft, "safetensors", given, made, facts)


def save_as(
    folder: str | Path,
    format: str,
    write: Callable[[Path], Mapping[str, str]],
    *,
    inputs: tuple[Leaf, ...],
    outputs: tuple[Leaf, ...],
    overwrite: bool = False,
    **facts: Any,
) -> Manifest:
    """Write files of another library with a manifest beside them.

    Args:
        folder: to be made.
        format: one of the manifest's.
        write: ``write(folder) -> versions``, which makes the files and says by what.
        inputs: of what they hold.
        outputs: likewise.
        overwrite: whether an artifact may be there, which is then lost.
        **facts: see ``save``.

    Example:
        >>> import tempfile
        >>> def write(folder):
        ...     (folder / "model.onnx").write_bytes(b"a graph")
        ...     return {"jax2onnx": "0.17.1"}
        >>> folder = Path(tempfile.mkdtemp()) / "graph"
        >>> save_as(folder, "onnx", write, inputs=(), outputs=()).versions["jax2onnx"]
        '0.17.1'
    """
    with _published(Path(folder), overwrite) as draft:
        made_by = write(draft)
        return _finished(draft, format, inputs, outputs, facts, versions=made_by)


def write_params(path: Path, params: Params, model_state: ModelState) -> None:
    """Parameters and state in one safetensors file, under ``params/…`` and ``model_state/…``."""
    trees = {"params": params, "model_state": model_state}
    arrays = {
        "/".join(filter(None, (part, name))): np.asarray(leaf)
        for part, tree in trees.items()
        for name, leaf in flat(tree).items()
    }
    safetensors.write(path, arrays, {"format": "functorch_kit"})


def _finished(
    draft: Path,
    format: str,
    inputs: tuple[Leaf, ...],
    outputs: tuple[Leaf, ...],
    facts: Mapping[str, Any],
    versions: Mapping[str, str] | None = None,
    **more: Any,
) -> Manifest:
    """Write what is said of the files that lie in the draft."""
    facts = dict(facts)
    vocabulary = facts.pop("vocabulary", None)
    words = {} if vocabulary is None else dict(vocabulary.to_dict())
    names = list(manifests.FORMATS[format])
    if words.get("kind") == "tokenizer":
        content = words.pop("content").encode()
        (draft / manifests.TOKENIZER).write_bytes(content)
        words["sha256"] = hashlib.sha256(content).hexdigest()
        names.append(manifests.TOKENIZER)
    files: dict[str, File] = {name: manifests.file_of(draft / name) for name in names}
    records = facts.pop("records", None) or _records(inputs)
    made_by = {"functorch_kit": __version__, "jax": jax.__version__, "numpy": np.__version__}
    values: dict[str, Any] = {
        "format": format,
        "created": _today().isoformat(),
        "expires": None,
        "versions": {**made_by, **(versions or {})},
        "inputs": inputs,
        "outputs": outputs,
        "records": records,
        "files": files,
        "vocabulary": words,
    }
    made = Manifest(**values | more | facts)
    manifests.write(draft, made)
    return made


def _records(inputs: tuple[Leaf, ...]) -> Inputs:
    """What is known of a record where nobody said more: the shape of one input."""
    if len(inputs) != 1:
        return Inputs("array", (), "")
    shape = tuple(side for side in inputs[0].shape[1:] if isinstance(side, int))
    return Inputs("array", shape, inputs[0].dtype)


@contextlib.contextmanager
def _published(folder: Path, overwrite: bool) -> Iterator[Path]:
    """A draft beside the folder, which gets its name once all of it is there."""
    name, folder = repr(str(folder)), Path(os.path.abspath(folder))
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ArtifactError(f"out is {name}, which is no folder: choose another")
    if folder.exists() and (there := {path.name for path in folder.iterdir()}):
        if manifests.NAME not in there or there - _OURS:
            raise ArtifactError(f"folder {name} holds other things: choose another out")
        if not overwrite:
            raise ArtifactError(
                f"folder {name} holds an artifact: set overwrite=true, or choose another out"
            )
    draft = folder.with_name(f".{folder.name}.part-{os.getpid()}")
    try:
        draft.mkdir(parents=True)
        yield draft
        if folder.exists():
            former = folder.with_name(f".{folder.name}.former-{os.getpid()}")
            folder.rename(former)
            draft.rename(folder)
            shutil.rmtree(former)
        else:
            draft.rename(folder)
    except OSError as error:
        raise ArtifactError(f"folder {name} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()
