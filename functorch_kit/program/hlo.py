"""The text of a compiled program, read: its instructions, and where each came from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_NAME = r"[\w.\-]+"
_INSTRUCTION = re.compile(rf"^\s+(ROOT )?%?({_NAME}) = (.+)$")
_COMPUTATION = re.compile(rf"^(?:ENTRY )?%?({_NAME}) (?:\(.*)?\{{$")
_OPCODE = re.compile(r"([\w\-]+)\(")
_CALLED = re.compile(rf"\b(?:calls|to_apply|body|condition)=%?({_NAME})")
_CALLED_LIST = re.compile(r"\b(?:branch_computations|called_computations|calls)=\{([^}]*)\}")
_OPERAND = re.compile(rf"%({_NAME})")
_OP_NAME = re.compile(r'\bop_name="((?:[^"\\]|\\.)*)"')
_TARGET = re.compile(r'\bcustom_call_target="([^"]*)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_FUSION_KIND = re.compile(r'"kind":"(__\w+)"')


@dataclass(frozen=True)
class Instruction:
    """One instruction of a compiled program.

    Attributes:
        name: unique in the program; what a profiler calls the operation.
        opcode: such as ``fusion`` or ``dot``.
        op_name: the scopes and the primitive that it came from; ``""`` where XLA made it itself.
        operands: names of the instructions that it reads.
        called: names of the computations that it runs.
        target: the library function of a custom call or a custom fusion, or ``""``.
        computation: the name of the computation that it stands in.
        size: bytes of its result; a tuple's are those of its parts.
        trips: how often a loop runs, where XLA knows it.
        is_root: its result is the computation's.
    """

    name: str
    opcode: str
    op_name: str
    operands: tuple[str, ...]
    called: tuple[str, ...]
    target: str
    computation: str
    size: int = 0
    trips: int | None = None
    is_root: bool = False


@dataclass
class Module:
    """A compiled program's instructions.

    Attributes:
        name: the module's name, such as ``jit_step``.
        instructions: by name, in the order of the text.
        computations: the instructions of each computation, by its name.
        users: the names of the instructions that read an instruction.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> compiled = jax.jit(lambda x: x @ x).lower(jnp.ones((4, 4))).compile()
        >>> module = read_module(hlo_text(compiled))
        >>> module.name, any(each.opcode == "dot" for each in module.instructions.values())
        ('jit__lambda', True)
    """

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)
    computations: dict[str, list[Instruction]] = field(default_factory=dict)
    users: dict[str, list[str]] = field(default_factory=dict)

    def inside(self, instruction: Instruction) -> Iterator[Instruction]:
        """The instructions of the computations that an instruction runs, nested ones too."""
        for name in instruction.called:
            for each in self.computations.get(name, ()):
                yield each
                yield from self.inside(each)


def hlo_text(compiled: Any) -> str:
    """The optimized HLO of something compiled.

    Args:
        compiled: a ``Program``, a ``jax.stages.Compiled``, or the text itself.

    Returns:
        The text; ``""`` where the backend does not give it.

    Example:
        >>> import jax
        >>> hlo_text(jax.jit(lambda x: x + 1).lower(1.0).compile())[:9]
        'HloModule'
    """
    if isinstance(compiled, str):
        return compiled
    try:
        return getattr(compiled, "_compiled", compiled).as_text() or ""
    except (NotImplementedError, RuntimeError):
        return ""


def read_module(text: str) -> Module:
    """Read the text of an optimized HLO module.

    Args:
        text: what ``compiled.as_text()`` gave.

    Returns:
        The module; lines that are no instruction are passed over.

    Example:
        >>> module = read_module('''HloModule jit_f, is_scheduled=true
        ... ENTRY %main (a: f32[2]) -> f32[2] {
        ...   %a = f32[2]{0} parameter(0)
        ...   ROOT %b = f32[2]{0} negate(%a), metadata={op_name="jit(f)/act/neg"}
        ... }''')
        >>> module.instructions["b"].opcode, module.instructions["b"].op_name, module.users["a"]
        ('negate', 'jit(f)/act/neg', ['b'])
    """
    title = re.match(rf"HloModule ({_NAME})", text)
    module = Module(title.group(1) if title else "")
    computation = ""
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            computation = found.group(1)
            module.computations[computation] = []
        elif found := _INSTRUCTION.match(line):
            root, name, definition = found.groups()
            instruction = _instruction(name, definition, computation, is_root=bool(root))
            if instruction is None:
                continue
            module.instructions[instruction.name] = instruction
            module.computations.setdefault(computation, []).append(instruction)
            for operand in instruction.operands:
                module.users.setdefault(operand, []).append(instruction.name)
    return module


def _instruction(name: str, text: str, computation: str, is_root: bool) -> Instruction | None:
    # The shape comes first; a tuple's holds spaces and parentheses of its own.
    after_shape = _closing(text, 0) + 1 if text.startswith("(") else text.find(" ")
    found = _OPCODE.search(text, after_shape)
    if found is None:
        return None
    end = _closing(text, found.end() - 1)
    operands, attributes = text[found.end() : end], text[end:]
    called = _CALLED.findall(attributes)
    for several in _CALLED_LIST.findall(attributes):
        called += re.findall(_NAME, several)
    op_name = _OP_NAME.search(attributes)
    trips = _TRIPS.search(attributes)
    target = _TARGET.search(attributes)
    if target is None and found.group(1) == "fusion":
        target = _FUSION_KIND.search(attributes)
    return Instruction(
        name=name,
        opcode=found.group(1),
        op_name=op_name.group(1) if op_name else "",
        operands=tuple(_OPERAND.findall(operands)),
        called=tuple(dict.fromkeys(called)),
        target=target.group(1) if target else "",
        computation=computation,
        size=_size(text[:after_shape]),
        trips=int(trips.group(1)) if trips else None,
        is_root=is_root,
    )


def _size(shape: str) -> int:
    bits = 0
    for dtype, dimensions in _ARRAY.findall(shape):
        width = re.search(r"\d+", dtype)
        # pred is a byte; a token or an opaque handle is nothing that is moved.
        width = int(width.group()) if width else 8 if dtype == "pred" else 0
        bits += width * math.prod(int(each) for each in dimensions.split(",") if each)
    return bits // 8


def _closing(text: str, opening: int) -> int:
    """The position of the parenthesis that closes the one at ``opening``."""
    depth = 0
    for position in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position
    return len(text) - 1
