"""Which tensor of another library is which of ours: a table, read in both directions."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit.interop.errors import InteropError
from functorch_kit.interop.layouts import SAME, Layout
from functorch_kit.interop.safetensors_file import write_safetensors
from functorch_kit.types import ModelState, Params, path_matches, path_name


class Entry(NamedTuple):
    """One tensor of theirs.

    Attributes:
        theirs: its name.
        ours: paths, which begin with ``params/`` or ``model_state/``; where it is several of ours
            in one, they stand side by side on our last axis.
        layout: how the two differ.
    """

    theirs: str
    ours: tuple[str, ...]
    layout: Layout = SAME


class Found(NamedTuple):
    """What was taken from a file of weights.

    Attributes:
        arrays: by our path; what is not there stays as it is.
        notes: a line for each thing that was not taken as it is.
    """

    arrays: dict[str, np.ndarray]
    notes: tuple[str, ...]

    def into(self, params: Params, model_state: ModelState) -> tuple[Params, ModelState]:
        """Parameters and state with these arrays in place of their own.

        Example:
            >>> Found({"params/bias": np.ones(2)}, ()).into({"bias": np.zeros(2)}, ())[0]["bias"]
            array([1., 1.])
        """

        def taken(branch: str, tree: Any) -> Any:
            return jax.tree_util.tree_map_with_path(
                lambda path, leaf: self.arrays.get(f"{branch}/{path_name(path)}", leaf), tree
            )

        return taken("params", params), taken("model_state", model_state)


@dataclasses.dataclass(frozen=True)
class Table:
    """The names and layouts of another library's model, and ours.

    Attributes:
        name: what they are of, for messages.
        entries: one for each tensor.
        prefix: what their names begin with; files without it are read as well.
        passed_over: patterns of their names that have no place here: counters, masks, other heads.
        constants: tensors of theirs that say nothing, to be written all the same.
        heads: paths of ours whose size is the number of classes: another number makes them new.
        cut: paths of ours that take the first rows where there are more.
        optional: paths of ours that a file may lack.
        tied: pairs of their names that have to hold the same numbers where both are there.

    Example:
        >>> table = Table("example", (Entry("w", ("params/kernel",)),))
        >>> found = table.read({"w": np.ones((2, 3))}, {"kernel": np.zeros((2, 3))}, ())
        >>> float(found.arrays["params/kernel"].sum())
        6.0
        >>> list(table.write({"kernel": np.ones(2)}, ()))
        ['w']
    """

    name: str
    entries: tuple[Entry, ...]
    prefix: str = ""
    passed_over: tuple[str, ...] = ()
    constants: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    heads: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    tied: tuple[tuple[str, str], ...] = ()

    def read(
        self, tensors: Mapping[str, np.ndarray], params: Params, model_state: ModelState
    ) -> Found:
        """Take their tensors as ours; every name and every shape has to be right.

        Args:
            tensors: theirs, by name; see ``read_tensors``.
            params: ours, of which only shapes and dtypes are read.
            model_state: likewise.

        Raises:
            InteropError: a tensor is missing, left over, or of another shape; it is named.
        """
        like = named_leaves(params, model_state)
        self._covers(like)
        here = self._as_named_in(tensors)
        used, arrays, notes = set(self.constants), {}, list[str]()
        for one, other in self.tied:
            used |= {one, other}
            if here(one) in tensors and here(other) in tensors:
                self._are_equal(tensors, here(one), here(other))
        new = self._new_heads(tensors, like)
        for head, (there, own) in new.items():
            notes.append(f"{_short(head)} is new: {there} outputs there, {own} here")
        for entry in self.entries:
            used.add(entry.theirs)
            if any(path_matches(head, path) for head in new for path in entry.ours):
                continue
            if here(entry.theirs) not in tensors:
                if not self._is_optional(entry):
                    path = _short(entry.ours[0])
                    raise InteropError(
                        f"there is no tensor {here(entry.theirs)!r}, from which {self.name} takes"
                        f" {path}: is it of another model?"
                    )
                notes += [f"{_short(path)} is new: the file has none" for path in entry.ours]
                continue
            taken, cut = self._taken(entry, tensors[here(entry.theirs)], like)
            arrays |= taken
            notes += cut
        self._nothing_left(tensors, {here(name) for name in used})
        return Found(arrays, tuple(notes))

    def write(self, params: Params, model_state: ModelState) -> dict[str, np.ndarray]:
        """Ours under their names and in their layouts: what ``read`` takes.

        Args:
            params: of our model.
            model_state: of our model.

        Raises:
            InteropError: they are not those of the model that this table is for.
        """
        held = named_leaves(params, model_state)
        self._covers(held)
        written: dict[str, np.ndarray] = {}
        for entry in self.entries:
            if any(path not in held for path in entry.ours):
                continue  # optional, and not there
            parts = [np.asarray(held[path]) for path in entry.ours]
            whole = parts[0] if len(parts) == 1 else np.concatenate(parts, -1)
            written[entry.theirs] = np.ascontiguousarray(entry.layout.theirs(whole))
        return written | dict(self.constants)

    def save(self, path: str | Path, params: Params, model_state: ModelState) -> None:
        """``write`` into a safetensors file, which the other library opens.

        Args:
            path: the file.
            params: of our model.
            model_state: of our model.

        Raises:
            InteropError: as ``write`` and ``write_safetensors``.
        """
        write_safetensors(path, self.write(params, model_state))

    def missing_from(self, names: Sequence[str] | Mapping[str, Any]) -> int:
        """How many tensors a file with these names lacks: 0 where it is of this model."""
        here = self._as_named_in(names)
        needed = [entry for entry in self.entries if not self._is_optional(entry)]
        return sum(here(entry.theirs) not in names for entry in needed)

    def _is_optional(self, entry: Entry) -> bool:
        return any(path_matches(each, path) for each in self.optional for path in entry.ours)

    def _as_named_in(self, names: Any) -> Any:
        if self.prefix and not any(name.startswith(self.prefix) for name in names):
            return lambda name: name.removeprefix(self.prefix)
        return lambda name: name

    def _covers(self, like: Mapping[str, Any]) -> None:
        known = {path for entry in self.entries for path in entry.ours}
        if strange := sorted(like.keys() - known):
            raise InteropError(f"{self.name} has nothing like {_short(strange[0])!r}")
        needed = {
            path for entry in self.entries if not self._is_optional(entry) for path in entry.ours
        }
        if missing := sorted(needed - like.keys()):
            raise InteropError(f"{self.name} needs {_short(missing[0])!r}, which is not there")

    def _new_heads(
        self, tensors: Mapping[str, np.ndarray], like: Mapping[str, Any]
    ) -> dict[str, tuple[int, int]]:
        """Heads that have another number of classes there, and the two numbers."""
        here, new = self._as_named_in(tensors), {}
        for entry in self.entries:
            heads = [each for each in self.heads if path_matches(each, entry.ours[0])]
            if not heads or here(entry.theirs) not in tensors:
                continue
            there = tensors[here(entry.theirs)]
            own = like[entry.ours[0]].shape
            # Only the number of classes may differ, which is our last axis.
            if there.ndim == len(own) and there.shape != entry.layout.shape(own):
                shape = entry.layout.ours(there).shape
                if shape[:-1] == own[:-1]:
                    new[heads[0]] = shape[-1], own[-1]
        return new

    def _taken(
        self, entry: Entry, there: np.ndarray, like: Mapping[str, Any]
    ) -> tuple[dict[str, np.ndarray], list[str]]:
        shapes = [tuple(like[path].shape) for path in entry.ours]
        whole = shapes[0]
        if len(shapes) > 1:
            whole = *whole[:-1], sum(shape[-1] for shape in shapes)
        expected, notes = entry.layout.shape(whole), []
        if there.shape != expected and entry.ours[0] in self.cut:
            ours = entry.layout.ours(there) if there.ndim == len(expected) else there
            if ours.shape[1:] == whole[1:] and ours.shape[0] > whole[0]:
                path = _short(entry.ours[0])
                notes.append(f"{path}: the first {whole[0]} of {ours.shape[0]} rows are used")
                there = entry.layout.theirs(ours[: whole[0]])
        if there.shape != expected:
            raise InteropError(
                f"tensor {entry.theirs!r} has shape {there.shape}, and {_short(entry.ours[0])} of"
                f" {self.name} needs {expected}"
            )
        if not jnp.issubdtype(there.dtype, jnp.floating):
            raise InteropError(f"tensor {entry.theirs!r} is {there.dtype}: parameters are floats")
        ends = np.cumsum([shape[-1] for shape in shapes])[:-1] if len(shapes) > 1 else []
        parts = np.split(entry.layout.ours(there), ends, -1) if len(shapes) > 1 else None
        found: dict[str, np.ndarray] = {}
        for path, part in zip(entry.ours, parts or [entry.layout.ours(there)], strict=True):
            found[path] = np.ascontiguousarray(part, like[path].dtype)
        return found, notes

    def _are_equal(self, tensors: Mapping[str, np.ndarray], one: str, other: str) -> None:
        if not np.array_equal(tensors[one], tensors[other]):
            raise InteropError(
                f"{one!r} and {other!r} differ, and {self.name} has one tensor for both:"
                " give is_tied=False"
            )

    def _nothing_left(self, tensors: Mapping[str, Any], used: set[str]) -> None:
        patterns = [*self.passed_over, *(self.prefix + each for each in self.passed_over)]
        left = [
            name
            for name in tensors
            if name not in used and not any(fnmatch.fnmatchcase(name, each) for each in patterns)
        ]
        if left:
            more = f", and {len(left) - 1} more" if len(left) > 1 else ""
            raise InteropError(
                f"tensor {left[0][:100]!r}{more}: {self.name} has no place for it, is it of another"
                " model?"
            )


def named_leaves(params: Params, model_state: ModelState) -> dict[str, Any]:
    """Every leaf of parameters and state by the path that tables know it by.

    Example:
        >>> list(named_leaves({"norm": {"scale": 0}}, {"norm": {"mean": 0}}))
        ['params/norm/scale', 'model_state/norm/mean']
    """

    def leaves() -> Iterator[tuple[str, Any]]:
        for branch, tree in (("params", params), ("model_state", model_state)):
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                yield f"{branch}/{path_name(path)}", leaf

    return dict(leaves())


def _short(path: str) -> str:
    return path.removeprefix("params/")
