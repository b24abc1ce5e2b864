"""What an operation of a compiled program is: its layer, its direction and its kind."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from functorch_kit.program.hlo import Instruction, Module
from functorch_kit.program.scopes import path_of

KINDS = (
    "matrix product", "convolution", "copy and transpose", "elementwise", "reduction",
    "gather and scatter", "random numbers", "sort and solve", "collective", "loop and call",
    "unknown",
)  # fmt: skip
"""Every kind that an operation may be of."""

# Of several kinds in one fusion, the first in this list names it: what it is there for.
_RANK = (
    "convolution", "matrix product", "collective", "sort and solve", "random numbers",
    "gather and scatter", "reduction", "elementwise", "copy and transpose",
)  # fmt: skip
_OPCODES = {
    "matrix product": "dot ragged-dot scaled-dot",
    "convolution": "convolution",
    "collective": "all-reduce all-gather all-to-all reduce-scatter collective-permute"
    " collective-broadcast ragged-all-to-all send recv partition-id replica-id",
    "sort and solve": "sort topk cholesky triangular-solve fft",
    "random numbers": "rng rng-bit-generator rng-get-and-update-state",
    "gather and scatter": "gather scatter dynamic-update-slice",
    "reduction": "reduce reduce-window select-and-scatter",
    "copy and transpose": "copy transpose reshape bitcast bitcast-convert slice concatenate pad"
    " broadcast reverse convert dynamic-slice copy-start copy-done iota",
    "loop and call": "while conditional call async-start async-done async-update",
}
_KIND_OF_OPCODE = {code: kind for kind, codes in _OPCODES.items() for code in codes.split()}
_NOTHING = frozenset("parameter constant tuple get-tuple-element after-all".split())
# Parts of a library function's name (or a GPU kernel's) that say what it computes.
_TARGETS = (
    (r"conv(?!ert)|winograd|[df]grad|wgrad", "convolution"),
    (r"gemm|matmul|\bdot\b|cutlass|fmha|attention|nvjet|xmma", "matrix product"),
    (r"nccl|all_?reduce|all_?gather|reduce_?scatter|all_?to_?all", "collective"),
    (r"rng|threefry|philox|random", "random numbers"),
    (r"memcpy|memset|transpose|\bcopy", "copy and transpose"),
    (r"lapack|cusolver|topk|sort|fft|potrf|getrf|geqrf", "sort and solve"),
    (r"scatter|gather", "gather and scatter"),
    (r"reduce|softmax|norm", "reduction"),
)
_RANDOM = re.compile(
    r"\b(?:_?threefry\w*|random_\w+|rng_\w+|_?(?:bernoulli|uniform|normal|truncated_normal"
    r"|categorical|gumbel|randint|shuffle|permutation))\b(?=[)/]|$)"
)
# What control flow and nested functions of JAX write between the scopes.
_PLUMBING = re.compile(
    r"(?:jit|pjit|xla_call|core_call|pmap|custom_jvp|custom_vjp)\(.*\)$|while$|body$|cond$"
    r"|closed_call$|checkpoint$|remat\d?$|branch_\d+_fun$|custom_[jv][vj]p_call\w*$|shard_map$"
    r"|xmap$|scan$|pallas_call$|eval_jaxpr$"
)


class Operation(NamedTuple):
    """Where an operation belongs.

    Attributes:
        path: the layer, as ``jax.named_scope`` spelled it; ``""`` outside any.
        direction: ``forward``, ``backward``, or ``outside`` of what is differentiated.
        kind: one of ``KINDS``.
    """

    path: str
    direction: str
    kind: str


UNKNOWN = Operation("", "outside", "unknown")


def operation_of(module: Module, instruction: Instruction) -> Operation:
    """Where an instruction of a module belongs.

    A fusion belongs to the layer of the matrix product or convolution in it, or else to the layer
    that XLA recorded for it, which is that of its last operation. What XLA added by itself (copies
    into another layout) belongs to what reads it.

    Args:
        module: the compiled program.
        instruction: one of its instructions.

    Returns:
        Its layer, direction and kind.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit.program.hlo import read_module
        >>> def loss(w, x):
        ...     with jax.named_scope("head"):
        ...         return jnp.tanh(x @ w).sum()
        >>> step = jax.jit(jax.grad(loss)).lower(jnp.ones((32, 8)), jnp.ones((64, 32))).compile()
        >>> module = read_module(step.as_text())
        >>> found = {operation_of(module, each) for each in module.instructions.values()}
        >>> Operation("head", "backward", "matrix product") in found
        True
    """
    op_name = _origin(module, instruction)
    direction = direction_of(op_name)
    if direction == "forward" and instruction.opcode == "fusion":
        # Part of a forward pass that is fused into the backward pass is done again there.
        inside = (direction_of(each.op_name) for each in module.inside(instruction))
        direction = "backward" if "backward" in inside else direction
    return Operation(layer_of(op_name), direction, _kind(module, instruction, op_name))


def kernel_kind(name: str) -> str:
    """What a library function or a GPU kernel computes, by its name alone.

    Example:
        >>> kernel_kind("__cudnn$convForward"), kernel_kind("sm90_xmma_gemm_bf16"), kernel_kind("f")
        ('convolution', 'matrix product', 'unknown')
    """
    for pattern, kind in _TARGETS:
        if re.search(pattern, name, re.IGNORECASE):
            return kind
    return "unknown"


@lru_cache(maxsize=65536)
def layer_of(op_name: str) -> str:
    """The path of named scopes in an operation's ``op_name``.

    Args:
        op_name: metadata of an HLO instruction: the traced function, scopes, the primitive.

    Returns:
        The path, without what JAX's transformations and control flow wrote into it.

    Example:
        >>> layer_of("jit(step)/transpose(jvp(blocks))/0/while/body/jit(f)/attention/dot_general")
        'blocks/0/attention'
        >>> layer_of("jit(step)/jvp(jit(_take))/gather"), layer_of("")
        ('', '')
    """
    # XLA joins the names of what it merged: the first stands for all.
    scopes = _split(op_name.partition(";")[0])[:-1]
    if scopes and re.match(r"p?jit\(", scopes[0]):
        scopes = scopes[1:]
    parts: list[str] = []
    for part in path_of("/".join(scopes)).split("/"):
        if part.startswith("jit(") and _RANDOM.search(part):
            break  # JAX names shared functions within by whoever called them first
        if part and not _PLUMBING.match(part):
            parts.append(part)
    return "/".join(parts)


def direction_of(op_name: str) -> str:
    """Whether an operation is of the forward pass, of the backward pass, or of neither.

    Example:
        >>> [direction_of(f"jit(f)/{each}/mul") for each in ("jvp(a)", "transpose(jvp(a))", "a")]
        ['forward', 'backward', 'outside']
    """
    if "transpose(" in op_name:
        return "backward"
    return "forward" if "jvp(" in op_name else "outside"


def _split(op_name: str) -> list[str]:
    """Components between slashes, those within parentheses left together."""
    parts, depth = [""], 0
    for letter in op_name:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "/" and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _origin(module: Module, instruction: Instruction) -> str:
    """The op_name of an instruction, or of the nearest that can stand for it."""
    if instruction.opcode == "fusion":
        for each in module.inside(instruction):
            if each.opcode in ("dot", "convolution") and each.op_name:
                return each.op_name
    if instruction.op_name:
        return instruction.op_name
    for each in reversed(list(module.inside(instruction))):
        if each.op_name:
            return each.op_name
    nearby: list[str] = [instruction.name]
    for _ in range(4):
        readers = [user for name in nearby for user in module.users.get(name, ())]
        for name in readers:
            if module.instructions[name].op_name:
                return module.instructions[name].op_name
        nearby = readers
    for name in instruction.operands:
        if name in module.instructions and module.instructions[name].op_name:
            return module.instructions[name].op_name
    return ""


def _kind(module: Module, instruction: Instruction, op_name: str) -> str:
    opcode = instruction.opcode
    if opcode in ("while", "conditional"):
        return "random numbers" if _RANDOM.search(op_name) else "loop and call"
    if opcode not in ("fusion", "call", "custom-call"):
        kind = _plain_kind(opcode)
        return "random numbers" if _is_random(kind, op_name) else kind
    # Scalars in a fusion of arrays are indices, or the sums of a reduction's own function.
    inside = (each for each in module.inside(instruction) if each.size > 8 or instruction.size <= 8)
    kinds = {_plain_kind(each.opcode) for each in inside}
    kinds |= {kernel_kind(instruction.target)} if opcode == "custom-call" else set()
    kind = next((each for each in _RANK if each in kinds), "unknown")
    if opcode == "fusion" and kind == "unknown":
        kind = "elementwise"
    return "random numbers" if _is_random(kind, op_name) else kind


def _plain_kind(opcode: str) -> str:
    if opcode in _NOTHING or opcode in ("fusion", "call", "custom-call"):
        return "unknown"
    base = re.sub(r"-(?:start|done|update)$", "", opcode)
    return _KIND_OF_OPCODE.get(opcode) or _KIND_OF_OPCODE.get(base) or "elementwise"


def _is_random(kind: str, op_name: str) -> bool:
    """Random bits are made of integer additions and shifts: only the scope tells."""
    return kind not in ("matrix product", "convolution", "collective") and bool(
        _RANDOM.search(op_name)
    )
