"""Static against dynamic graphs: examples 17 to 19 and trees, in every way of running them.

Each way answers the same stream of calls twice. The first time whatever has to be compiled is
compiled in passing; the second time nothing is. A dynamic graph starts at once and pays for every
call; a program for each shape pays whenever a new shape comes; ``cond``, ``scan`` over padded
buckets, a bounded loop and batching by depth pay once.

Command: ``python experiments/lecture/static_and_dynamic.py``
"""

import argparse
import importlib
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import classroom
import jax
import jax.numpy as jnp
import numpy as np
import pictures

import functorch_kit as fk

dynamic_net = importlib.import_module("19_dynamic_net")


class Way(NamedTuple):
    """One way of answering a call; ``traces`` grows whenever it is traced anew."""

    call: Callable[[Any], Any]
    traces: list[int]


class Taken(NamedTuple):
    """What a way took: seconds of each call the first time, of a call the second time."""

    first: list[float]
    again: float
    programs: int
    results: list[Any]


def jitted(function: Callable[..., Any], **options: Any) -> tuple[Callable[..., Any], list[int]]:
    """A function under ``jax.jit``, and the list that grows when it is traced."""
    traces: list[int] = []

    def traced(*args: Any) -> Any:
        traces.append(1)
        return function(*args)

    return jax.jit(traced, **options), traces


def taken(way: Way, stream: Sequence[Any]) -> Taken:
    """Answer the stream twice."""
    first, results = [], []
    for item in stream:
        began = time.perf_counter()
        results.append(jax.block_until_ready(way.call(item)))
        first.append(time.perf_counter() - began)
    began = time.perf_counter()
    for item in stream:
        jax.block_until_ready(way.call(item))
    return Taken(first, (time.perf_counter() - began) / len(stream), len(way.traces), results)


def conditional(quick: bool) -> tuple[dict[str, Way], list[Any]]:
    """Example 17 on Set B: which matrix x is multiplied by depends on the sign of z."""
    x, _, (w1, _) = classroom.data_set("B")
    w2 = -w1

    def branching(z: float) -> Any:
        return x @ w1 if z > 0 else x @ w2

    def as_python(z: float) -> Any:
        with jax.disable_jit():
            return branching(z)

    for_each, its_traces = jitted(
        lambda is_on, x, w1, w2: x @ w1 if is_on else x @ w2, static_argnums=0
    )
    both, traces = jitted(lambda z, x, w1, w2: jax.lax.cond(z > 0, lambda: x @ w1, lambda: x @ w2))
    ways = {
        "disable_jit": Way(as_python, []),
        "op by op": Way(branching, []),
        "jit, a program for each branch": Way(lambda z: for_each(z > 0, x, w1, w2), its_traces),
        "jit with cond": Way(lambda z: both(np.float32(z), x, w1, w2), traces),
    }
    return ways, list(np.random.default_rng(0).standard_normal(8 if quick else 200))


def sequences(quick: bool) -> tuple[dict[str, Way], list[Any]]:
    """Example 18 with 256 numbers a step, over sequences of 1 to 32 steps (8 in the short form)."""
    most, width = (4, 16) if quick else (32, 256)
    numbers = np.random.default_rng(0)
    w = np.asarray(numbers.uniform(0.5, 1, width), np.float32)
    y0 = np.zeros(width, np.float32)

    def unrolled(x: Any, w: Any) -> Any:
        y = jnp.asarray(y0)
        for x_t in x:
            y = (y + x_t) * w
        return y

    def scanned(x: Any, w: Any) -> Any:
        return jax.lax.scan(lambda y, x_t: ((y + x_t) * w, None), y0, x)[0]

    def masked(x: Any, length: Any, w: Any) -> Any:
        def step(y: Any, at: Any) -> tuple[Any, None]:
            x_t, t = at
            return jnp.where(t < length, (y + x_t) * w, y), None

        return jax.lax.scan(step, y0, (x, jnp.arange(len(x), dtype=jnp.int32)))[0]

    def padded(x: np.ndarray, size: int) -> np.ndarray:
        return np.concatenate([x, np.zeros((size - len(x), width), np.float32)])

    def bucket(length: int) -> int:
        return 1 << (length - 1).bit_length()

    loop, loop_traces = jitted(unrolled)
    scan, scan_traces = jitted(scanned)
    in_buckets, bucket_traces = jitted(masked)
    in_one, one_traces = jitted(masked)
    ways = {
        "op by op": Way(lambda x: unrolled(x, w), []),
        "jit, unrolled, a program for each length": Way(lambda x: loop(x, w), loop_traces),
        "scan, a program for each length": Way(lambda x: scan(x, w), scan_traces),
        "scan over buckets, powers of two": Way(
            lambda x: in_buckets(padded(x, bucket(len(x))), np.int32(len(x)), w), bucket_traces
        ),
        "scan over the longest, one program": Way(
            lambda x: in_one(padded(x, most), np.int32(len(x)), w), one_traces
        ),
    }
    lengths = numbers.integers(1, most + 1, 6 if quick else 100)
    stream = [numbers.standard_normal((length, width), np.float32) for length in lengths]
    return ways, stream


def depths(quick: bool) -> tuple[dict[str, Way], list[Any]]:
    """Gradients of example 19, whose middle layer is used 0 to 3 times."""
    x, y, _ = classroom.data_set("B")
    model = dynamic_net.net()
    params, _ = jax.jit(model.init)(jax.random.key(0), {"x": x, "times": jnp.int32(0)})

    def in_python(params: Any, times: int) -> Any:
        return jnp.sum(jnp.square(dynamic_net.in_python(params, x, times) - y))

    def bounded(params: Any, times: Any) -> Any:
        y_pred, _ = model.apply(params, (), {"x": x, "times": times})
        return jnp.sum(jnp.square(y_pred - y))

    slope = jax.grad(in_python)
    for_each, its_traces = jitted(slope, static_argnums=1)
    one, traces = jitted(jax.grad(bounded))
    ways = {
        "op by op": Way(lambda times: slope(params, times), []),
        "jit, a program for each depth": Way(lambda times: for_each(params, times), its_traces),
        "jit with a bounded loop": Way(lambda times: one(params, np.int32(times)), traces),
    }
    return ways, [0, 2, 1] if quick else np.random.default_rng(0).integers(0, 4, 100).tolist()


def trees(quick: bool) -> tuple[dict[str, Way], list[Any]]:
    """A Tree-LSTM: nodes of the same depth of different trees together, as TensorFlow Fold did."""
    draw = random.Random(0)
    width = 8 if quick else 64
    config = fk.models.TreeLSTMConfig(vocabulary=50, embedding=width, width=width)
    model, one_by_one = fk.models.tree_lstm(config), fk.models.tree_lstm_one_by_one(config)

    def tree(leaves: int) -> Any:
        if leaves == 1:
            return draw.randrange(50)
        left = draw.randint(1, leaves - 1)
        return tree(left), tree(leaves - left)

    most, count, calls = (3, 2, 1) if quick else (16, 8, 6)
    forests = [[tree(draw.randint(2, most)) for _ in range(count)] for _ in range(calls)]
    params, _ = jax.jit(model.init)(jax.random.key(0), fk.models.forest(forests[0]))
    together, traces = jitted(lambda params, x: model.apply(params, (), x)[0])
    # As many chunks in every schedule, so that one program runs them all.
    longest = max(len(fk.models.forest(forest, width=8)["op"]) for forest in forests)

    def batched(forest: Any) -> Any:
        x = fk.models.forest(forest, width=8)
        short = longest - len(x["op"])
        for name in ("op", "inputs", "argument", "example"):
            fill = -1 if name == "op" else 0
            ends = [(0, short), *[(0, 0)] * (x[name].ndim - 1)]
            x[name] = np.pad(x[name], ends, constant_values=fill)
        return together(params, x)

    ways = {
        "op by op, tree by tree": Way(lambda forest: one_by_one.apply(params, (), forest)[0], []),
        "jit, batched by depth": Way(batched, traces),
    }
    return ways, forests


PARTS = {
    "conditional": conditional,
    "sequences": sequences,
    "depths": depths,
    "trees": trees,
}


def example(options: argparse.Namespace) -> classroom.Shown:
    figures: dict[str, Any] = {}
    claims: dict[str, bool] = {}
    rows, panels, programs = [], [], {}
    for part, prepare in PARTS.items():
        ways, stream = prepare(options.quick)
        lines: dict[str, Any] = {}
        reference: list[Any] | None = None
        for name, way in ways.items():
            found = taken(way, stream)
            reference = reference or found.results
            row = {
                "part": part,
                "way": name,
                "programs": found.programs,
                "calls": len(stream),
                "first_time_ms": sum(found.first) * 1e3,
                "again_ms_a_call": found.again * 1e3,
            }
            rows.append(row)
            programs[part, name] = found.programs
            figures[f"{part}: {name}"] = (
                f"{found.programs} program{'s' * (found.programs != 1)},"
                f" {row['first_time_ms']:.4g} ms for {len(stream)} calls,"
                f" {row['again_ms_a_call']:.3g} ms a call the second time"
            )
            claims[f"{part}: {name} gives the same"] = all(
                classroom.difference(one, other) < 1e-3
                for one, other in zip(found.results, reference, strict=True)
            )
            elapsed = (np.cumsum(found.first) * 1e3).tolist()
            lines[name] = (list(range(1, len(stream) + 1)), elapsed)
        title = f"{part}: the first time"
        panels.append(pictures.Panel(title, "calls answered", "milliseconds so far", lines))
    one = [
        ("conditional", "jit with cond"),
        ("sequences", "scan over the longest, one program"),
        ("depths", "jit with a bounded loop"),
        ("trees", "jit, batched by depth"),
    ]
    claims["cond, padding, a bounded loop and batching by depth are one program each"] = all(
        programs[each] == 1 for each in one
    )
    each = programs["sequences", "scan, a program for each length"]
    buckets = programs["sequences", "scan over buckets, powers of two"]
    claims["buckets need fewer programs than lengths"] = 1 < buckets < each
    figures["picture"] = pictures.leave(options.folder, "static_and_dynamic", panels, rows)
    return classroom.Shown(figures, claims, {"rows": rows})


def add_options(parser: argparse.ArgumentParser) -> None:
    pictures.add_folder(parser, "static-and-dynamic")


if __name__ == "__main__":
    sys.exit(classroom.run(example, options=add_options))
