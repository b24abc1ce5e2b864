"""The frame of functorch's examples: figures on standard output, ``--quick``, errors in one line.

A script calls ``main(run, __doc__)``; ``run(options)`` gets the command line and yields what is to
be printed, a name and a value at a time. Exit codes: 0 done, 2 refused.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jax

from functorch_kit.errors import UserError

Figures = Iterator[tuple[str, Any]]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: see --help")


def main(
    run: Callable[[argparse.Namespace], Figures],
    description: str | None,
    options: Callable[[argparse.ArgumentParser], object] = lambda parser: None,
    arguments: Sequence[str] | None = None,
) -> None:
    """Read the command line, run, print each figure on a line of its own, and exit.

    Args:
        run: yields names and values.
        description: for ``--help``; the script's docstring.
        options: adds options of the script's own.
        arguments: the command line; that of the process if None.
    """
    parser = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    options(parser)
    try:
        for name, value in run(parser.parse_args(arguments)):
            print(f"{name}: {shown(value)}", flush=True)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(0)


def shown(value: Any) -> str:
    """A number with as many digits as one reads."""
    if isinstance(value, float) or getattr(value, "shape", None) == ():
        number = float(value)
        return f"{number:.4g}"
    return str(value)


def milliseconds(step: Callable[..., Any], *arguments: Any, times: int = 5) -> float:
    """The median time of a call, compiled and waited for."""
    jax.block_until_ready(step(*arguments))
    found: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        jax.block_until_ready(step(*arguments))
        found.append((time.perf_counter() - began) * 1e3)
    return sorted(found)[len(found) // 2]
