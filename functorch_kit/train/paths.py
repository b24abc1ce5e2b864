"""Optimizers by path: what decays, how fast each part learns, which optimizer trains which part.

Paths and patterns are those of ``types.path_matches``: ``"**/bias"``, ``"blocks/*/attention"``,
``"head"``; a pattern stands for everything below it, too. Where several match a parameter, the last
one counts, so that a general pattern comes first and its exceptions follow. A pattern that names no
parameter is refused, with the nearest path that does.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax

from functorch_kit.train.options import OptionsError
from functorch_kit.types import Params, PyTree, path_matches, path_name

Factors = Mapping[str, Any] | Callable[[Params], Mapping[str, Any]]
"""Pattern -> factor, or a function of the parameters that returns it (see ``layer_decay``)."""


class PathError(OptionsError):
    """A pattern that names no parameter, or a parameter that no pattern names.

    Example:
        >>> from functorch_kit.errors import UserError
        >>> issubclass(PathError, UserError), issubclass(PathError, ValueError)
        (True, True)
    """


def by_path(
    optimizers: Mapping[str, optax.GradientTransformation],
) -> optax.GradientTransformationExtraArgs:
    """One optimizer for each part of the parameters, as adversarial training needs it.

    Args:
        optimizers: pattern -> optimizer. The last pattern that matches a parameter counts; give
            ``"**"`` first for all that no other names.

    Returns:
        A transformation whose ``init`` raises PathError: a pattern names nothing, or a parameter is
        named by none.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = by_path({"generator": optax.sgd(0.1), "discriminator": optax.sgd(1.0)})
        >>> params = {"generator": jnp.ones(1), "discriminator": jnp.ones(1)}
        >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
        >>> {name: round(float(updates[name][0]), 2) for name in params}
        {'generator': -0.1, 'discriminator': -1.0}
    """

    def labels(params: Params) -> PyTree:
        def label(path: Any, _: Any) -> str:
            pattern = last_match(optimizers, path_name(path))
            if pattern is None:
                raise PathError(
                    f"by_path: no optimizer for {path_name(path)!r}: add a pattern that names it,"
                    ' or "**" before all others'
                )
            return pattern

        return jax.tree_util.tree_map_with_path(label, params)

    return checked("by_path", list(optimizers), optax.partition({**optimizers}, labels))


def scale_by_path(factors: Factors) -> optax.GradientTransformationExtraArgs:
    """Multiply updates by a factor of their path: learning rates of their own.

    It comes after an optimizer: ``optax.chain(optax.adam(1e-3), scale_by_path({"stem": 0.1}))``;
    weight decay scales with it, as it does with the learning rate.

    Args:
        factors: pattern -> factor, which may be traced; what no pattern names keeps its updates.

    Returns:
        A transformation without a state, whose ``init`` raises PathError where a pattern names
        nothing.

    Example:
        >>> import jax.numpy as jnp
        >>> scale = scale_by_path({"stem": 0.1, "stem/bias": 0.0})
        >>> params = {"stem": {"kernel": jnp.ones(1), "bias": jnp.ones(1)}, "head": jnp.ones(1)}
        >>> updates, _ = scale.update(params, scale.init(params))
        >>> updates["head"].tolist(), round(float(updates["stem"]["kernel"][0]), 2)
        ([1.0], 0.1)
    """

    def of(params: Params) -> Mapping[str, Any]:
        return factors(params) if callable(factors) else factors

    def init(params: Params) -> optax.EmptyState:
        check_patterns("learning_rates", list(of(params)), params)
        return optax.EmptyState()

    def update(updates: PyTree, state: Any, params: Any = None, **_: Any) -> tuple[PyTree, Any]:
        chosen = of(updates)

        def scaled(path: Any, leaf: jax.Array) -> jax.Array:
            pattern = last_match(chosen, path_name(path))
            if pattern is None:
                return leaf
            return leaf * jax.numpy.asarray(chosen[pattern]).astype(leaf.dtype)

        return jax.tree_util.tree_map_with_path(scaled, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def layer_decay(
    stages: Sequence[str | Sequence[str]], factor: Any
) -> Callable[[Params], dict[str, Any]]:
    """Layer-wise decay of the learning rate: each layer learns slower than the one above it.

    The last stage learns at the full rate, the one before it at ``factor`` times that, and so on
    (Clark et al., 2020; the recipe for fine-tuning of BEiT and MAE). What no stage names learns at
    the full rate.

    Args:
        stages: patterns from the input to the output. One that has a ``*`` makes a stage of each
            path that it matches, in the order of their numbers: ``"blocks/*"`` is blocks 0 to 11.
            A list of patterns makes one stage of all of them.
        factor: between 0 and 1, may be traced.

    Returns:
        What ``scale_by_path`` takes.

    Example:
        >>> params = {"token": 0, "position": 0, "blocks": {"0": 0, "1": 0}, "head": 0}
        >>> layer_decay([["token", "position"], "blocks/*", "head"], 0.5)(params)
        {'token': 0.125, 'position': 0.125, 'blocks/0': 0.25, 'blocks/1': 0.5, 'head': 1.0}
    """

    def factors(params: Params) -> dict[str, Any]:
        known = known_paths(params)
        depths: list[list[str]] = []
        for stage in stages:
            patterns = [stage] if isinstance(stage, str) else list(stage)
            check_patterns("layer_decay", patterns, params)
            if isinstance(stage, str) and "*" in stage:
                depths += [[path] for path in sorted(_expanded(stage, known), key=_in_order)]
            else:
                depths.append(patterns)
        last = len(depths) - 1
        return {
            pattern: factor ** (last - depth)
            for depth, patterns in enumerate(depths)
            for pattern in patterns
        }

    return factors


def decay_mask(no_decay: Sequence[str]) -> Callable[[Params], PyTree]:
    """What weight decay is for, as the ``mask`` of optax: all but what some patterns name.

    The usual choice is ``["**/bias", "**/scale"]``: decay pulls kernels and embeddings to zero;
    biases and the scales of norms gain nothing from it.

    Args:
        no_decay: patterns of what is left alone.

    Returns:
        From parameters to the same tree of booleans. Patterns are not checked: optax also asks for
        parts of the tree; ``checked`` does that once.

    Example:
        >>> decay_mask(["**/bias"])({"dense": {"kernel": 0, "bias": 0}})
        {'dense': {'bias': False, 'kernel': True}}
    """

    def mask(params: Params) -> PyTree:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: last_match(no_decay, path_name(path)) is None, params
        )

    return mask


def checked(
    option: str, patterns: Sequence[str], optimizer: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """The same optimizer, whose ``init`` refuses patterns that name no parameter.

    Args:
        option: what the patterns are given for, which the message begins with.
        patterns: the patterns.
        optimizer: what is checked.

    Returns:
        The optimizer, taking extra arguments as optax's own do.

    Example:
        >>> try:
        ...     checked("no_decay", ["**/bais"], optax.sgd(0.1)).init({"dense": {"bias": 0}})
        ... except PathError as error:
        ...     print(error)
        no_decay: '**/bais' names nothing, did you mean 'dense/bias'?
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Params) -> PyTree:
        check_patterns(option, patterns, params)
        return inner.init(params)

    return optax.GradientTransformationExtraArgs(init, inner.update)


def check_patterns(option: str, patterns: Sequence[str], params: Params) -> None:
    """Refuse a pattern that names no parameter, with the nearest path that names some.

    Raises:
        PathError: for the first such pattern.

    Example:
        >>> params = {"head": 0, "blocks": [{"bias": 0}]}
        >>> check_patterns("no_decay", ["head", "blocks/*/bias"], params)
    """
    known = known_paths(params)
    for pattern in patterns:
        if not any(path_matches(pattern, path) for path in known):
            near = difflib.get_close_matches(pattern, known, n=1, cutoff=0.0)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise PathError(f"{option}: {pattern!r} names nothing{hint}")


def known_paths(params: Params) -> list[str]:
    """Every path of a parameter, and of what stands above one.

    Example:
        >>> known_paths({"head": {"bias": 0, "kernel": 0}})
        ['head', 'head/bias', 'head/kernel']
    """
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    parts = [name.split("/") for name in names]
    return sorted({"/".join(name[:end]) for name in parts for end in range(1, len(name) + 1)})


def last_match(patterns: Mapping[str, Any] | Sequence[str], path: str) -> str | None:
    """The last pattern that matches a path, or None.

    Example:
        >>> last_match(["**", "head"], "head/bias"), last_match(["head"], "body/bias")
        ('head', None)
    """
    return next((each for each in reversed(list(patterns)) if path_matches(each, path)), None)


def _expanded(pattern: str, known: Sequence[str]) -> list[str]:
    """The shortest paths that a pattern matches: those above which none matches."""
    found = [path for path in known if path_matches(pattern, path)]
    return [path for path in found if not any(path.startswith(f"{other}/") for other in found)]


def _in_order(path: str) -> list[Any]:
    """Numbers as numbers, so that block 10 follows block 9."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split("/", path)]
