"""A function compiled ahead of time, for fixed shapes, that tells the truth about itself."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr
from jax.stages import Compiled

from functorch_kit.program.cache import watch_compilations
from functorch_kit.program.captured import CAPTURED_BYTES, check_captured
from functorch_kit.program.compile_report import ProgramReport, report_on
from functorch_kit.program.compiler_options import measured_options
from functorch_kit.program.contract import (
    carried,
    check_arguments,
    check_carry,
    tracing,
)
from functorch_kit.program.mismatch import ProgramMismatch, explain, explain_keywords
from functorch_kit.program.specs import argument_names, to_spec
from functorch_kit.types import PyTree, Spec


class Program:
    """A compiled function that cannot retrace; made by ``compile``.

    Attributes:
        name: what messages and reports call it.
        report: what compiling it showed.
        specs: one pytree of ``jax.ShapeDtypeStruct`` for each positional argument.
        jaxpr: what was traced; ``str`` of it is its text.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import program
        >>> double = program.compile(lambda x: 2 * x, jnp.zeros(3), name="double")
        >>> double(jnp.arange(3.0)).tolist()
        [0.0, 2.0, 4.0]
    """

    def __init__(
        self,
        name: str,
        fn: Callable[..., Any],
        compiled: Compiled,
        specs: tuple[Spec, ...],
        report: ProgramReport,
        jaxpr: ClosedJaxpr,
    ) -> None:
        self.name = name
        self.report = report
        self.specs = specs
        self.jaxpr = jaxpr
        self.__wrapped__ = fn
        self._compiled = compiled

    def __call__(self, *args: PyTree, **static: Any) -> Any:
        """Run it; the result may still be on its way (``jax.block_until_ready`` waits for it).

        Args:
            *args: arrays of exactly the shapes, dtypes and structure that it was compiled for;
                donated ones are gone afterwards.
            **static: none; what is given by name is refused, and named.

        Returns:
            What the function returns.

        Raises:
            ProgramMismatch: something else came; the message names each wrong leaf.
        """
        # No check before the call: JAX makes its own, and this one would cost every step.
        try:
            return self._compiled(*args, **static)
        # Shapes, dtypes and structure are a TypeError; a sharding is a ValueError; a number that
        # the dtype does not hold is an OverflowError.
        except (TypeError, ValueError, OverflowError) as error:
            message = self._explain(args, static)
            if message is None:
                raise
            raise ProgramMismatch(message) from error

    @property
    def out_spec(self) -> Spec:
        """Shapes and dtypes of what it returns."""
        return self._compiled.out_info

    def hlo(self) -> str | None:
        """The compiled program as XLA's text; None where the backend shows none."""
        try:
            return self._compiled.as_text()
        except (NotImplementedError, RuntimeError):
            return None

    def _explain(self, args: tuple[PyTree, ...], static: dict[str, Any]) -> str | None:
        if static:
            return explain_keywords(self.name, self.__wrapped__, static)
        names = argument_names(self.__wrapped__, len(self.specs))
        placed, _ = self._compiled.input_shardings
        return explain(self.name, names, self.specs, args, placed)

    def __repr__(self) -> str:
        return f"Program({self.name!r})"


def compile(
    fn: Callable[..., Any],
    *specs: Spec,
    name: str,
    donate: tuple[int, ...] = (),
    carry: int | None = None,
    captured_bytes: int | None = CAPTURED_BYTES,
    compiler_options: Mapping[str, Any] | None = None,
    out_shardings: Any = None,
) -> Program:
    """Lower and compile a function for the given shapes, before there is any data.

    Args:
        fn: a pure function of pytrees.
        *specs: one pytree for each positional argument, of ``jax.ShapeDtypeStruct``s, or of arrays
            of which only shape and dtype are read.
        name: what errors and reports call the program.
        donate: positions of arguments whose memory the outputs may take; those are gone after a
            call. Leaves that could not be reused stand in ``report.not_donated``.
        carry: position of the state: the argument that the output, or the first item of an output
            tuple, replaces in the next call. It must come out as it went in.
        captured_bytes: the largest array that the function may capture; None for any.
        compiler_options: XLA's, for this program alone, over those of ``measured_options``.
        out_shardings: where the outputs lie, as ``jax.jit`` takes it; XLA's choice if None. Where
            the arguments lie stands in their specs.

    Returns:
        The program, with its report.

    Raises:
        ProgramRefused: the function captures a large array, takes or needs a static value, or
            returns its state with other shapes or dtypes.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> spec = jax.ShapeDtypeStruct((4, 3), jnp.float32)
        >>> norm = compile(lambda x: (x * x).sum(), spec, name="norm")
        >>> norm.report.flops, norm.report.argument_bytes
        (24, 48)
    """
    names = argument_names(fn, len(specs))
    check_arguments(name, names, specs)
    shapes = tuple(map(to_spec, specs))
    began = time.perf_counter()
    with warnings.catch_warnings():
        # Not lost: the report names the leaves, which the warning does not.
        warnings.filterwarnings("ignore", message="Some donated buffers were not usable")
        with tracing(name, names, shapes):
            # keep_unused: a leaf that the function ignores is checked like any other, and the
            # compiled program's parameters are the leaves, one for one.
            placed = {} if out_shardings is None else {"out_shardings": out_shardings}
            jitted = jax.jit(fn, donate_argnums=donate, keep_unused=True, **placed)
            traced = jitted.trace(*shapes)
        if carry is not None:
            check_carry(name, names[carry], shapes[carry], carried(shapes[carry], traced.out_info))
        if captured_bytes is not None:
            check_captured(name, fn, traced.jaxpr, captured_bytes)
        lowered = traced.lower()
    lowered_at = time.perf_counter()
    with watch_compilations() as seen:
        options = measured_options() | dict(compiler_options or {})
        compiled = lowered.compile(options or None)
    compiled_at = time.perf_counter()
    report = report_on(
        compiled,
        traced.jaxpr.jaxpr,
        argument_names=names,
        specs=shapes,
        donate=donate,
        name=name,
        lower_seconds=lowered_at - began,
        compile_seconds=compiled_at - lowered_at,
        from_cache=seen.hits > 0,
    )
    return Program(name, fn, compiled, shapes, report, traced.jaxpr)
