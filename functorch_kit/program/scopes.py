"""Name stacks of a jaxpr, reduced to the paths of the parts that they speak of."""

from __future__ import annotations

import re
from functools import lru_cache

# What transformations wrap around the scope that they pass, as in ``transpose(jvp(conv))``.
_WRAPPER = re.compile(r"\b(?:jvp|transpose|vmap|linearize|shard_map|remat|checkpoint)\(")
# Components that JAX itself pushes: rematerialization, and einsum's own formula.
_NOT_A_PART = re.compile(r"rematted_computation$|.*->")


@lru_cache(maxsize=4096)
def path_of(name_stack: str) -> str:
    """Strip what JAX's transformations wrote into a name stack.

    Args:
        name_stack: ``str(eqn.source_info.name_stack)`` of an equation.

    Returns:
        The path that ``jax.named_scope`` spelled, ``""`` outside any scope.

    Example:
        >>> path_of("transpose(jvp(blocks))/0/vmap()/attention")
        'blocks/0/attention'
        >>> path_of("transpose(jvp(blocks))/0/jvp(blocks)/0/rematted_computation")
        'blocks/0'
    """
    if name_stack.startswith("transpose("):
        name_stack = _without_repeat(name_stack)
    return "/".join(_components(name_stack))


def join(outer: str, inner: str) -> str:
    """Put the path inside a nested jaxpr behind the path of the equation that holds it.

    Example:
        >>> join("blocks", "0"), join("", "head"), join("head", "")
        ('blocks/0', 'head', 'head')
    """
    return f"{outer}/{inner}" if outer and inner else outer or inner


def prefixes(path: str) -> list[str]:
    """A path and all that it lies in, the longest first, ``""`` last.

    Example:
        >>> prefixes("blocks/0/norm")
        ['blocks/0/norm', 'blocks/0', 'blocks', '']
    """
    parts = path.split("/") if path else []
    return ["/".join(parts[:end]) for end in range(len(parts), -1, -1)]


def _components(name_stack: str) -> list[str]:
    plain = _unwrap(name_stack)
    return [part for part in plain.split("/") if part and not _NOT_A_PART.match(part)]


def _unwrap(text: str) -> str:
    while match := _WRAPPER.search(text):
        depth, end = 1, match.end()
        while depth and end < len(text):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        closing = end - 1 if depth == 0 else end
        text = text[: match.start()] + text[match.end() : closing] + text[end:]
    return text


def _without_repeat(name_stack: str) -> str:
    """Drop the scope's second mention: a transposed ``jax.checkpoint`` names it twice."""
    for match in re.finditer(r"/jvp\(", name_stack):
        first, second = name_stack[: match.start()], name_stack[match.start() + 1 :]
        parts = _components(first)
        if parts and _components(second)[: len(parts)] == parts:
            return second
    return name_stack
