"""Pieces of a batch add up to the batch, and are as large as the budget allows."""

import jax
import jax.numpy as jnp
import pytest

from functorch_kit.transforms.chunks import in_chunks, rows_within
from functorch_kit.transforms.flat import flatten, live_bytes


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 7, 100])
def test_every_row_is_met_once_and_in_order(chunk: int):
    rows = {"x": jnp.arange(7.0), "key": jax.random.split(jax.random.key(0), 7)}

    def part(rows):
        draws = jax.vmap(lambda key: jax.random.uniform(key))(rows["key"])
        return jnp.sum(rows["x"]), {"square": rows["x"] ** 2, "draws": draws}

    total, each = in_chunks(part, rows, chunk, lambda one, other: one + other)
    assert total == 21
    assert each["square"].tolist() == [0, 1, 4, 9, 16, 25, 36]
    assert each["draws"].tolist() == part(rows)[1]["draws"].tolist()


def test_a_budget_holds_as_many_rows_as_fit():
    rows = jnp.ones((100, 1024))

    def part(rows):
        return jnp.sum(jnp.sin(jnp.cos(rows)))

    for fit in (1, 3, 50):
        assert rows_within(fit * 2 * 4096, part, rows) == fit
    assert rows_within(1, part, rows) == 1
    assert rows_within(1 << 40, part, rows) == 100


def test_the_step_that_grows_counts_and_not_the_one_that_is_largest_for_few():
    rows = jnp.ones((100, 64))

    def part(rows):
        each = jnp.sum(jnp.outer(rows[:, 0], jnp.ones(1000)))  # 4 kB a row, and gone
        return each * jnp.ones((64, 64))  # 16 kB, however many rows

    assert rows_within(50 * 4000 + 5000, part, rows) in (50, 51)


def test_what_is_needed_later_counts_until_then():
    def kept(x):
        y = jnp.sin(x)
        return jnp.sum(jnp.cos(jnp.tan(x)) + y)

    # sin, and tan and cos beside it: three at once.
    assert max(live_bytes(flatten(jax.make_jaxpr(kept)(jnp.ones(64))))) == 3 * 256


def test_what_a_loop_holds_inside_counts():
    def looped(x):
        return jax.lax.fori_loop(0, 3, lambda _, x: x * jnp.sum(jnp.outer(x, x)), x)

    assert max(live_bytes(flatten(jax.make_jaxpr(looped)(jnp.ones(64))))) >= 64 * 64 * 4
