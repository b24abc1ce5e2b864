"""Artifacts used: a folder becomes a function, once every byte of it is what was written."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from functorch_kit import safetensors
from functorch_kit.data import Vocabulary, vocabulary_from
from functorch_kit.export import manifest as manifests
from functorch_kit.export.errors import ArtifactError
from functorch_kit.export.manifest import Leaf, Manifest
from functorch_kit.types import PyTree, path_name

_PARTS = ("params", "model_state")
_WIDE = ("float64", "int64", "uint64", "complex128")


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A trained model as a function of raw records; ``load`` makes it.

    Attributes:
        manifest: what the artifact says of itself.
        params: address -> array: what may be trained further.
        state: address -> array: statistics of norms and the like, which stay.
        vocabulary: of a language model; None for others.

    Example:
        >>> import tempfile
        >>> from functorch_kit import export, nn
        >>> model, x = nn.dense(1), jnp.ones((4, 3))
        >>> folder = Path(tempfile.mkdtemp()) / "dense"
        >>> _ = export.save(folder, model, *model.init(jax.random.key(0), x), x, gradients=1)
        >>> artifact = export.load(folder)
        >>> slope = jax.grad(lambda params: artifact.apply(params, x).sum())(artifact.params)
        >>> slope["bias"].tolist(), slope["kernel"].shape
        ([4.0], (3, 1))
    """

    manifest: Manifest
    params: dict[str, jax.Array]
    state: dict[str, jax.Array]
    vocabulary: Vocabulary | None
    _program: Any = dataclasses.field(repr=False)

    def __call__(self, x: PyTree) -> Any:
        """What the model says of a batch of raw records: logits, or the numbers of a regression.

        Args:
            x: as ``manifest.inputs`` has it.

        Raises:
            ArtifactError: another shape or dtype.
        """
        return self.apply(self.params, x)

    def apply(self, params: dict[str, Any], x: PyTree) -> Any:
        """The same with other parameters: a pure function, with as many gradients as it carries.

        Args:
            params: address -> array, as in ``params``.
            x: as ``manifest.inputs`` has it.

        Raises:
            ArtifactError: another shape or dtype; or gradients of an artifact that has none.
        """
        x = jax.tree.map(jnp.asarray, x) if isinstance(x, Mapping) else jnp.asarray(x)
        self._check(x)
        return self._run(params, self.state, x)

    @functools.cached_property
    def _run(self) -> Any:
        def run(params: dict[str, Any], state: dict[str, Any], x: PyTree) -> Any:
            return self._program.call(params, state, x)

        if self.manifest.gradients:
            return jax.jit(run)
        without = jax.custom_vjp(run)

        def forward(*arguments: Any) -> Any:
            raise ArtifactError("the artifact has no gradients: export it again with gradients=1")

        without.defvjp(forward, forward)
        return jax.jit(without)

    def _check(self, x: PyTree) -> None:
        given = {
            "/".join(filter(None, ("x", path_name(path)))): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(x)
        }
        wanted = {leaf.name: leaf for leaf in self.manifest.inputs}
        if set(given) != set(wanted):
            raise ArtifactError(
                f"the input has {', '.join(sorted(given))}: give {', '.join(sorted(wanted))}"
            )
        sizes: set[int] = set()
        for name, leaf in given.items():
            expected = wanted[name]
            if leaf.dtype != np.dtype(expected.dtype) or not _fits(leaf.shape, expected.shape):
                found = Leaf(name, tuple(leaf.shape), str(leaf.dtype))
                raise ArtifactError(f"{name} is {found}, and the artifact takes {expected}")
            sizes.add(leaf.shape[0])
        if len(sizes) > 1:
            raise ArtifactError(f"the inputs have {sorted(sizes)} records: give as many of each")
        if 0 in sizes:
            raise ArtifactError("the input has no records: give one or more")


def load(folder: str | Path) -> Artifact:
    """Make a function of an artifact; no code of the model is needed, and none is imported.

    Every file is compared with the manifest's SHA-256 before a byte of it is used, and what has
    expired is not used at all. That keeps damage out, not malice: whoever can write the folder can
    write its manifest. Like any program, an artifact is for those who trust where it came from.

    Args:
        folder: what ``save`` or ``experiments/export.py`` wrote.

    Raises:
        UserError: no artifact, another format, one that is damaged, expired, or made by a JAX that
            is newer than this one.

    Example:
        >>> import tempfile
        >>> from functorch_kit import export, nn
        >>> model, x = nn.dense(2), jnp.ones((4, 3))
        >>> folder = Path(tempfile.mkdtemp()) / "dense"
        >>> _ = export.save(folder, model, *model.init(jax.random.key(0), x), x)
        >>> load(folder)(x).shape
        (4, 2)
    """
    folder = Path(folder)
    found = manifests.read(folder)
    name = repr(str(folder))
    if found.format != "stablehlo":
        raise ArtifactError(
            f"artifact {name} is of format {found.format}, which is not run here: export the run"
            " with format=stablehlo"
        )
    _check_times(found, name)
    content = manifests.read_file(folder, found, manifests.PROGRAM)
    listed = found.files[manifests.PARAMS]
    arrays = safetensors.read(folder / manifests.PARAMS, size=listed.bytes, sha256=listed.sha256)
    vocabulary = _vocabulary(folder, found, name)
    program = _deserialized(content, name)
    trees = {part: _part(arrays, part) for part in _PARTS}
    _check_program(program, found, trees, name)
    placed = {part: jax.tree.map(jnp.asarray, tree) for part, tree in trees.items()}
    return Artifact(found, placed["params"], placed["model_state"], vocabulary, program)


def _check_times(found: Manifest, name: str) -> None:
    if found.has_expired(_today()):
        raise ArtifactError(
            f"artifact {name} expired on {found.expires}: export the run again, JAX does not"
            " promise to read it any longer"
        )
    made, here = found.versions.get("jax", ""), jax.__version__
    least = jax.export.minimum_supported_calling_convention_version
    most = jax.export.maximum_supported_calling_convention_version
    if _release(made) > _release(here) or not least <= found.calling_convention <= most:
        raise ArtifactError(
            f"artifact {name} was made by jax {made}, and this is {here}: use the version that made"
            " it, or export the run with this one"
        )
    wide = [leaf for leaf in (*found.inputs, *found.outputs) if leaf.dtype in _WIDE]
    if wide and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise ArtifactError(f"artifact {name} computes in 64 bits: set JAX_ENABLE_X64=1")


def _deserialized(content: np.ndarray, name: str) -> Any:
    try:
        return jax.export.deserialize(bytearray(content))
    except ImportError as error:
        raise ArtifactError(
            "programs are read with flatbuffers: pip install 'functorch_kit[export]'"
        ) from error
    except Exception as error:  # of JAX, flatbuffers or MLIR
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise ArtifactError(
            f"the program of artifact {name} cannot be read ({reason}): export the run again"
        ) from error


def _check_program(
    program: Any, found: Manifest, trees: dict[str, dict[str, np.ndarray]], name: str
) -> None:
    """The program takes what the manifest and the parameters' file say, and nothing else."""
    wanted = [
        *(Leaf(part, array.shape, str(array.dtype)) for part in _PARTS
          for _, array in sorted(trees[part].items())),
        *found.inputs,
    ]  # fmt: skip
    given, keywords = jax.tree.unflatten(program.in_tree, program.in_avals)
    is_alike = (
        not keywords
        and len(given) == 3
        and [sorted(part) if isinstance(part, dict) else None for part in given[:2]]
        == [sorted(trees[part]) for part in _PARTS]
        and [_words(aval) for aval in program.in_avals] == [_words(leaf) for leaf in wanted]
        and [_words(aval) for aval in program.out_avals] == [_words(leaf) for leaf in found.outputs]
        and program.nr_devices == 1
    )
    if not is_alike:
        raise ArtifactError(
            f"the program of artifact {name} does not take what its manifest says: export the run"
            " again"
        )


def _words(leaf: Any) -> str:
    return f"{leaf.dtype}({','.join(str(side) for side in leaf.shape)})"


def _part(arrays: dict[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(part).removeprefix("/"): array
        for name, array in arrays.items()
        if name.split("/")[0] == part
    }


def _vocabulary(folder: Path, found: Manifest, name: str) -> Vocabulary | None:
    words = dict(found.vocabulary)
    if not words:
        return None
    if words["kind"] == "tokenizer":
        content = manifests.read_file(folder, found, manifests.TOKENIZER).tobytes()
        words["content"] = content.decode("utf-8", errors="replace")
    made = vocabulary_from(words)
    if found.outputs and len(made) != found.outputs[0].shape[-1]:
        raise ArtifactError(f"the vocabulary of artifact {name} is another than its program's")
    return made


def _fits(shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        isinstance(side, str) or side == there for side, there in zip(wanted, shape, strict=True)
    )


def _release(version: str) -> tuple[int, ...]:
    """The first two numbers of a version; enough to tell which is newer."""
    return tuple(int(number) for number in re.findall(r"\d{1,6}", version)[:2])


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()
