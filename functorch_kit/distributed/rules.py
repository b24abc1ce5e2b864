"""Which axis of which parameter is split over which axis of the mesh."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec

from functorch_kit.distributed.mesh import MeshError
from functorch_kit.types import Params, PyTree, path_matches, path_name

SMALLEST = 4096
"""Arrays of fewer numbers are copied to every device: to gather them would take longer."""


class Rules(NamedTuple):
    """How parameters are split, by path.

    Attributes:
        specs: path pattern -> PartitionSpec of the leaf's **last** axes, so that a rule for a layer
            holds for a scanned stack of them. Where several patterns match, the last one counts.
        is_strict: whether an axis that cannot be split evenly is an error. If not, it stays whole,
            and a pattern may name nothing: for rules that are made for a family of models.
    """

    specs: Mapping[str, PartitionSpec]
    is_strict: bool = True


_COLUMNS, _ROWS, _ENTRIES = (
    PartitionSpec(None, "tensor"),
    PartitionSpec("tensor", None),
    PartitionSpec("tensor"),
)


def _dense(columns: Sequence[str], rows: Sequence[str]) -> dict[str, PartitionSpec]:
    """Layers split by their outputs, and those that add up what they made of the parts."""
    specs = {f"{each}/kernel": _COLUMNS for each in columns}
    specs |= {f"{each}/bias": _ENTRIES for each in columns}
    return specs | {f"{each}/kernel": _ROWS for each in rows}


_BLOCK = _dense(
    [*(f"**/attention/{name}" for name in ("query", "key", "value")), "**/mlp/up", "**/mlp/gate"],
    ["**/attention/out", "**/mlp/down"],
)
GPT = Rules(_BLOCK | {"token/embedding": _ROWS, "head/kernel": _COLUMNS}, is_strict=False)
"""Attention by heads, MLPs by hidden units, the embedding by tokens (Shoeybi et al., 2019)."""
VIT = Rules(_BLOCK | _dense(["head"], []), is_strict=False)
"""As ``GPT``; the head by classes."""
MLP = Rules(
    _dense([f"hidden_*{n}" for n in range(0, 10, 2)], [f"hidden_*{n}" for n in range(1, 10, 2)]),
    is_strict=False,
)
"""Hidden layers by outputs and by inputs in turn, so that they talk at every second one."""


def as_rules(rules: Rules | Mapping[str, PartitionSpec] | None) -> Rules:
    """Rules from a plain mapping, which are strict, or from none.

    Example:
        >>> as_rules({"head/kernel": PartitionSpec(None, "tensor")}).is_strict
        True
    """
    if isinstance(rules, Rules):
        return rules
    return Rules(dict(rules or {}))


def partition(
    params: Params,
    mesh: Any,
    rules: Rules | Mapping[str, PartitionSpec] | None = None,
    *,
    smallest: int = SMALLEST,
) -> PyTree:
    """A PartitionSpec for each parameter: by rule, and then over ``fsdp`` without one.

    Of each leaf of at least ``smallest`` numbers the largest axis that ``fsdp`` divides, and that
    no rule has taken, is split over it.

    Args:
        params: arrays or specs.
        mesh: concrete or abstract.
        rules: see ``Rules``.
        smallest: see ``SMALLEST``.

    Raises:
        MeshError: a rule that names no parameter or no axis of the mesh, or splits unevenly.

    Example:
        >>> mesh = jax.sharding.AbstractMesh((2, 4), ("fsdp", "tensor"))
        >>> params = {"head": {"kernel": jax.ShapeDtypeStruct((64, 100), "float32"),
        ...                    "bias": jax.ShapeDtypeStruct((100,), "float32")}}
        >>> found = partition(params, mesh, {"head/kernel": PartitionSpec(None, "tensor")})
        >>> tuple(found["head"]["kernel"]), tuple(found["head"]["bias"])
        (('fsdp', 'tensor'), (None,))
    """
    chosen = as_rules(rules)
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    _check(chosen, names, mesh)

    def spec(path: Any, leaf: Any) -> PartitionSpec:
        entries = _by_rule(chosen, path_name(path), leaf, mesh)
        return fully_split(leaf, mesh, entries, smallest=smallest)

    return jax.tree_util.tree_map_with_path(spec, params)


def fully_split(
    leaf: Any, mesh: Any, entries: Sequence[Any] | None = None, *, smallest: int = SMALLEST
) -> PartitionSpec:
    """The PartitionSpec of one leaf with its largest free axis over ``fsdp``.

    Args:
        leaf: an array or spec.
        mesh: concrete or abstract.
        entries: what rules have taken, an entry for each axis; nothing if None.
        smallest: see ``SMALLEST``.

    Example:
        >>> mesh = jax.sharding.AbstractMesh((4,), ("fsdp",))
        >>> tuple(fully_split(jax.ShapeDtypeStruct((6, 1000), "float32"), mesh))
        (None, 'fsdp')
    """
    found = list(entries or [None] * len(leaf.shape))
    parts = mesh.shape.get("fsdp", 1)
    taken = [name for entry in found for name in axes_of(entry)]
    if parts > 1 and "fsdp" not in taken and math.prod(leaf.shape) >= smallest:
        free = [n for n, size in enumerate(leaf.shape) if found[n] is None and size % parts == 0]
        if free:
            found[max(free, key=lambda n: leaf.shape[n])] = "fsdp"
    return PartitionSpec(*found)


def axes_of(entry: Any) -> tuple[str, ...]:
    """The axes of the mesh in one entry of a PartitionSpec.

    Example:
        >>> axes_of(None), axes_of("data"), axes_of(("data", "fsdp"))
        ((), ('data',), ('data', 'fsdp'))
    """
    if entry is None:
        return ()
    return (entry,) if isinstance(entry, str) else tuple(entry)


def _check(rules: Rules, names: Sequence[str], mesh: Any) -> None:
    for pattern, spec in rules.specs.items():
        for axis in (name for entry in spec for name in axes_of(entry)):
            if axis not in mesh.shape:
                known = ", ".join(mesh.shape)
                raise MeshError(f"rule {pattern!r}: the mesh has no axis {axis!r}: it has {known}")
        if rules.is_strict and not any(path_matches(pattern, name) for name in names):
            near = difflib.get_close_matches(pattern, names, 1, 0.3)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise MeshError(f"rule {pattern!r} names no parameter{hint}")


def _by_rule(rules: Rules, name: str, leaf: Any, mesh: Any) -> list[Any]:
    entries: list[Any] = [None] * len(leaf.shape)
    matching = [pattern for pattern in rules.specs if path_matches(pattern, name)]
    if not matching:
        return entries
    spec = rules.specs[matching[-1]]
    start = len(entries) - len(spec)
    if start < 0:
        raise MeshError(
            f"rule {matching[-1]!r} has {len(spec)} axes, and {name!r} is of shape {leaf.shape}:"
            " give one for its last axes"
        )
    for place, entry in enumerate(spec, start):
        # An axis of size 1 splits nothing, and XLA need not hear of it.
        axes = tuple(axis for axis in axes_of(entry) if mesh.shape[axis] > 1)
        parts = math.prod(mesh.shape[axis] for axis in axes)
        if leaf.shape[place] % parts:
            if rules.is_strict:
                raise MeshError(
                    f"rule {matching[-1]!r}: axis {place} of {name!r} {leaf.shape} does not split"
                    f" over {' × '.join(axes)} of {parts}: leave that axis whole"
                )
            continue
        entries[place] = axes[0] if len(axes) == 1 else axes or None
    return entries
