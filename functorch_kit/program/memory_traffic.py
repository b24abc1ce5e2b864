"""Bytes that a compiled program's operations read and write, with loops counted as they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from functorch_kit.program.hlo import Instruction, Module, hlo_text, read_module

_FREE = frozenset(
    """
    parameter constant tuple get-tuple-element bitcast after-all partition-id replica-id
    copy-done all-reduce-done all-gather-done collective-permute-done async-done send-done recv-done
    opt-barrier iota
    """.split()
)
_PARTS = ("dynamic-slice", "slice", "gather")


def bytes_moved(compiled: Any) -> int | None:
    """Count what the operations of a compiled program read and write.

    XLA's own analysis counts the body of a loop once; here it counts as often as XLA knows it to
    run, and once where the number is not known (a chunk of training steps counts as one step, as
    ``flops`` has it). What is fused stays in registers and counts nothing; of an array of which a
    slice is read, the slice counts. Caches are not modelled: the traffic to memory is this or less.

    Args:
        compiled: a ``Program``, a ``jax.stages.Compiled``, or the text of its optimized HLO.

    Returns:
        Bytes; None where the backend gives no text.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.ones((16, 32))
        >>> bytes_moved(jax.jit(jnp.matmul).lower(x, x.T).compile()) >= 4 * (2 * 16 * 32 + 16 * 16)
        True
    """
    module = read_module(hlo_text(compiled))
    if not module.computations:
        return None
    # The entry computation comes last in the text.
    return _computation(module, list(module.computations)[-1])


def _computation(module: Module, name: str) -> int:
    return sum(_instruction(module, each) for each in module.computations.get(name, ()))


def _instruction(module: Module, instruction: Instruction) -> int:
    opcode = instruction.opcode
    if opcode in _FREE:
        return 0
    if opcode in ("while", "call", "conditional", "async-start"):
        bodies = [_computation(module, name) for name in instruction.called]
        if opcode == "conditional":
            return max(bodies, default=0)
        return (1 if instruction.trips is None else instruction.trips) * sum(bodies)
    if opcode == "fusion" and instruction.called:
        return _fusion(module, instruction)
    operands = [module.instructions.get(name) for name in instruction.operands]
    sizes = [0 if each is None else each.size for each in operands]
    if opcode in _PARTS:
        return 2 * instruction.size
    if opcode == "dynamic-update-slice":
        return 2 * sizes[1]
    if opcode == "scatter":
        return instruction.size if len(sizes) < 3 else 3 * sizes[2]
    return instruction.size + sum(sizes)


def _fusion(module: Module, fusion: Instruction) -> int:
    inner = module.computations.get(fusion.called[0], [])
    parameters = [each for each in inner if each.opcode == "parameter"]
    root = next((each for each in inner if each.is_root), None)
    written = fusion.size
    if root is not None and root.opcode == "dynamic-update-slice":
        update = module.instructions.get(root.operands[1])
        written = fusion.size if update is None else update.size
    return written + sum(_read(module, each, root) for each in parameters)


def _read(module: Module, parameter: Instruction, root: Instruction | None) -> int:
    """Bytes of a fusion's parameter that the fusion reads."""
    readers = _readers(module, parameter)
    if root is not None and root.opcode == "dynamic-update-slice" and readers == [root]:
        # What is updated in place is not read.
        return 0 if root.operands[0] == parameter.name else parameter.size
    if readers and all(each.opcode in _PARTS for each in readers):
        return min(parameter.size, sum(each.size for each in readers))
    return parameter.size


def _readers(module: Module, instruction: Instruction) -> Sequence[Instruction]:
    found: list[Instruction] = []
    for name in module.users.get(instruction.name, ()):
        reader = module.instructions[name]
        found += _readers(module, reader) if reader.opcode == "bitcast" else [reader]
    return found
