"""What fits is taken, what does not is left, and both are listed."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit.checkpoint import CheckpointError, Damaged, Store, packed

STATE: dict[str, Any] = {
    "params": {"stem": {"kernel": jnp.ones((2, 3))}, "head": {"kernel": jnp.ones((3, 10))}},
    "opt_state": {"count": jnp.int32(7)},
    "key": jax.random.key(4),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    with Store(tmp_path) as store:
        store.save(5, STATE)
    return store


def test_a_new_head_is_left_as_it_is_and_the_rest_is_taken(store: Store):
    like = {**STATE, "params": {**STATE["params"], "head": {"kernel": jnp.zeros((3, 4))}}}
    like["params"]["stem"] = {"kernel": jax.ShapeDtypeStruct((2, 3), jnp.float32)}
    found = store.restore_partial(5, like)
    assert found.taken == ["key", "opt_state/count", "params/stem/kernel"]
    assert found.left == {"params/head/kernel": "expected float32[3,4], found float32[3,10]"}
    assert np.array_equal(found.state["params"]["stem"]["kernel"], np.ones((2, 3)))
    assert np.array_equal(found.state["params"]["head"]["kernel"], np.zeros((3, 4)))
    assert jax.tree.structure(found.state) == jax.tree.structure(STATE)


def test_leaves_that_were_not_asked_for_are_listed_too(store: Store):
    found = store.restore_partial(5, {"opt_state": {"count": jnp.int32(0)}})
    assert int(found.state["opt_state"]["count"]) == 7
    assert found.taken == ["opt_state/count"]
    assert found.left == {
        "key": "expected no such leaf, found key<fry>[]",
        "params/head/kernel": "expected no such leaf, found float32[3,10]",
        "params/stem/kernel": "expected no such leaf, found float32[2,3]",
    }


def test_another_dtype_is_left_and_never_cast(store: Store):
    like = {"opt_state": {"count": jnp.int8(0)}, "key": STATE["key"]}
    found = store.restore_partial(5, like)
    assert found.left["opt_state/count"] == "expected int8[], found int32[]"
    assert found.state["opt_state"]["count"].dtype == jnp.int8


def test_a_missing_leaf_for_which_there_is_no_array_is_named(store: Store):
    like = {"key": STATE["key"], "new": jax.ShapeDtypeStruct((2,), jnp.float32)}
    with pytest.raises(CheckpointError, match=r"leaf 'new' expected float32\[2\], found no such"):
        store.restore_partial(5, like)


def test_a_state_of_which_nothing_fits_is_refused(store: Store):
    with pytest.raises(CheckpointError, match="no leaf that fits"):
        store.restore_partial(5, {"other": jnp.ones(1)})


def test_a_damaged_step_is_refused_in_part_too(store: Store):
    path = store.folder / "5" / packed.NAME
    path.write_bytes(path.read_bytes()[:-1] + b"\x80")
    with pytest.raises(Damaged):
        store.restore_partial(5, {"opt_state": {"count": jnp.int32(0)}})
