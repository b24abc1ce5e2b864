"""What compiling a program showed: time, operations, memory, donated buffers."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
from jax.extend.core import Jaxpr
from jax.stages import Compiled

from functorch_kit.program.cost import jaxpr_flops_by_scope
from functorch_kit.program.donation import reused_parameters, why_not_reused
from functorch_kit.program.specs import leaf_names, size_in_bytes
from functorch_kit.types import Spec


@dataclasses.dataclass(frozen=True)
class ProgramReport:
    """The compile report of one program.

    Attributes:
        name: the program's name.
        lower_seconds: tracing the function and lowering it to StableHLO.
        compile_seconds: XLA's part; small where ``from_cache``.
        flops: floating-point operations of a call, counted in the jaxpr: a ``scan`` as often as it
            runs, a loop of unknown length as one pass.
        bytes_accessed: memory traffic by XLA's own estimate, loop bodies counted once.
        argument_bytes: memory of the arguments.
        output_bytes: memory of the results, donated buffers that hold them included.
        temp_bytes: memory for intermediate values.
        peak_bytes: the most memory that is in use at once during a call.
        donated: addresses of donated leaves whose memory holds a result.
        not_donated: leaves of donated arguments whose memory is not used again. Both are empty
            where the backend does not say.
        why_not_donated: the same addresses with the reason.
        platform: ``cpu``, ``gpu`` or ``tpu``.
        from_cache: it came out of the persistent compilation cache.

    None stands for what the backend does not tell.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import program
        >>> add = program.compile(lambda x, y: x + y, 1.0, jnp.zeros(3), name="add", donate=(1,))
        >>> add.report.donated, add.report.flops
        (('y',), 3)
    """

    name: str
    lower_seconds: float
    compile_seconds: float
    flops: int
    bytes_accessed: int | None
    argument_bytes: int
    output_bytes: int | None
    temp_bytes: int | None
    peak_bytes: int | None
    donated: tuple[str, ...]
    not_donated: tuple[str, ...]
    why_not_donated: dict[str, str]
    platform: str
    from_cache: bool

    def to_dict(self) -> dict[str, Any]:
        """The same as plain numbers, strings and lists, ready for JSON."""
        plain = dataclasses.asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in plain.items()}


def report_on(
    compiled: Compiled,
    jaxpr: Jaxpr,
    *,
    argument_names: tuple[str, ...],
    specs: tuple[Spec, ...],
    donate: tuple[int, ...],
    name: str,
    lower_seconds: float,
    compile_seconds: float,
    from_cache: bool,
) -> ProgramReport:
    """Ask a compiled program about itself.

    Args:
        compiled: what ``lowered.compile()`` gave, compiled with ``keep_unused=True``.
        jaxpr: what was lowered, for counting operations.
        argument_names: a name for each of ``specs``.
        specs: the arguments' shapes.
        donate: positions of the donated arguments.
        name: the program's name.
        lower_seconds: as measured.
        compile_seconds: as measured.
        from_cache: whether the persistent cache had it.

    Returns:
        The report.

    Example:
        >>> import jax
        >>> traced = jax.jit(lambda x: x + 1, keep_unused=True).trace(1.0)
        >>> report_on(traced.lower().compile(), traced.jaxpr.jaxpr, argument_names=("x",),
        ...           specs=(jax.ShapeDtypeStruct((), "float32"),), donate=(), name="next",
        ...           lower_seconds=0.1, compile_seconds=0.2, from_cache=False).argument_bytes
        4
    """
    # Not from `compiled`, which cannot tell them where effects are ordered.
    outputs = [variable.aval for variable in jaxpr.outvars]
    donated, why_not = _donations(compiled, argument_names, specs, donate, outputs)
    arguments = sum(size_in_bytes(leaf) for leaf in jax.tree.leaves(specs))
    outputs, temporary, peak = memory_of(compiled, specs)
    return ProgramReport(
        name=name,
        lower_seconds=lower_seconds,
        compile_seconds=compile_seconds,
        flops=sum(jaxpr_flops_by_scope(jaxpr).values()),
        bytes_accessed=_bytes_accessed(compiled),
        argument_bytes=arguments,
        output_bytes=outputs,
        temp_bytes=temporary,
        peak_bytes=peak,
        donated=donated,
        not_donated=tuple(why_not),
        why_not_donated=why_not,
        platform=_platform(compiled),
        from_cache=from_cache,
    )


def _donations(
    compiled: Compiled,
    names: tuple[str, ...],
    specs: tuple[Spec, ...],
    donate: tuple[int, ...],
    outputs: list[Any],
) -> tuple[tuple[str, ...], dict[str, str]]:
    leaves = [
        (address, leaf, position in donate)
        for position, (name, spec) in enumerate(zip(names, specs, strict=True))
        for address, leaf in leaf_names(name, spec)
    ]
    # The text of a large module takes a while to print: not without need.
    reused = reused_parameters(compiled, len(leaves)) if donate else None
    if reused is None:
        return (), {}
    wished = [(index, *leaf[:2]) for index, leaf in enumerate(leaves) if leaf[2]]
    used = [(address, leaf) for index, address, leaf in wished if index in reused]
    kept = [(address, leaf) for index, address, leaf in wished if index not in reused]
    return (
        tuple(address for address, _ in used),
        why_not_reused(kept, [leaf for _, leaf in used], outputs),
    )


class Memory(NamedTuple):
    """Memory of one call, in bytes, by the compiled program; None is what the backend hides."""

    output: int | None
    temporary: int | None
    peak: int | None


def memory_of(compiled: Compiled, specs: tuple[Spec, ...]) -> Memory:
    """Ask a compiled program for the memory that a call takes.

    Args:
        compiled: the program.
        specs: its arguments' shapes.

    Example:
        >>> import jax.numpy as jnp
        >>> compiled = jax.jit(lambda x: x + 1).lower(jnp.zeros(3)).compile()
        >>> memory_of(compiled, (jnp.zeros(3),)).output
        12
    """
    arguments = sum(size_in_bytes(leaf) for leaf in jax.tree.leaves(specs))
    try:
        stats: Any = compiled.memory_analysis()
    except (NotImplementedError, RuntimeError):
        stats = None
    if stats is None:
        return Memory(None, None, None)
    outputs, temporary = stats.output_size_in_bytes, stats.temp_size_in_bytes
    everything = arguments + outputs - stats.alias_size_in_bytes + temporary
    peak = getattr(stats, "peak_memory_in_bytes", 0)
    # The CPU backend may report a peak below its own temporary memory: then it is not the peak.
    peak = peak if peak >= max(arguments, temporary) else everything
    return Memory(outputs, temporary, peak)


def _bytes_accessed(compiled: Compiled) -> int | None:
    try:
        costs: Any = compiled.cost_analysis()
    except (NotImplementedError, RuntimeError):
        return None
    value = costs.get("bytes accessed") if costs else None
    return None if value is None else int(value)


def _platform(compiled: Compiled) -> str:
    shardings = jax.tree.leaves((compiled.input_shardings, compiled.output_shardings))
    for sharding in shardings:
        for device in sharding.device_set:
            return device.platform
    return jax.default_backend()
