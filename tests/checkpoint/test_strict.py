"""What does not fit is refused, in one line that names the leaf."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit.checkpoint import CheckpointError, Store
from functorch_kit.errors import UserError

STATE: dict[str, Any] = {
    "head": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)},
    "key": jax.random.key(0),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    with Store(tmp_path_factory.mktemp("strict")) as store:
        store.save(5, STATE)
    return store


def refusal(store: Store, like: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        store.restore(5, like)
    assert isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def head(**changes: Any) -> dict[str, Any]:
    return {**STATE, "head": {**STATE["head"], **changes}}


def test_the_true_state_fits(store: Store):
    store.restore(5, STATE)


@pytest.mark.parametrize(
    ("like", "leaf", "expected", "found"),
    [
        (head(kernel=jnp.ones((2, 4))), "head/kernel", "float32[2,4]", "float32[2,3]"),
        (head(kernel=jnp.ones((3, 2))), "head/kernel", "float32[3,2]", "float32[2,3]"),
        (head(kernel=jnp.ones((2, 3), "bfloat16")), "head/kernel", "bfloat16[2,3]", "float32[2,3]"),
        (head(kernel=jnp.ones((2, 3), "int32")), "head/kernel", "int32[2,3]", "float32[2,3]"),
        (head(kernel=np.ones((2, 3))), "head/kernel", "float64[2,3]", "float32[2,3]"),
        (head(scale=jnp.ones(1)), "head/scale", "float32[1]", "no such leaf"),
        (head(bias=None), "head/bias", "no such leaf", "float32[3]"),
        ({**STATE, "key": jnp.zeros(2, "uint32")}, "key", "uint32[2]", "key<fry>[]"),
        ({**STATE, "key": jax.random.key(0, impl="rbg")}, "key", "key<rbg>[]", "key<fry>[]"),
        ({**STATE, "key": jax.random.split(jax.random.key(0))}, "key", "key<fry>[2]", "key<fry>[]"),
    ],
)
def test_another_leaf_is_named_with_what_was_expected_and_found(
    store: Store, like: Any, leaf: str, expected: str, found: str
):
    message = refusal(store, like)
    assert f"leaf {leaf!r} expected {expected}, found {found}" in message
    assert str(store.folder / "5") in message


def test_many_faults_are_counted_not_listed(store: Store):
    message = refusal(store, {"layers": [jnp.ones(1) for _ in range(20)]})
    assert message.count("expected") == 3
    assert "and 20 more" in message


def test_a_step_that_is_not_there_is_named_with_those_that_are(store: Store):
    with pytest.raises(CheckpointError, match="no checkpoint of step 6: it has 5"):
        store.restore(6, STATE)
    with pytest.raises(CheckpointError, match="no checkpoint of step 6: it has 5"):
        store.verify(6)


@pytest.mark.parametrize("value", [3, 1.5, True, "text"])
def test_a_python_value_is_no_leaf(tmp_path: Path, store: Store, value: Any):
    with pytest.raises(CheckpointError, match="leaf 'n/count' is a Python"):
        Store(tmp_path).save(1, {"n": {"count": value}})
    assert "leaf 'n/count' is a Python" in refusal(store, {"n": {"count": value}})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "value", [np.array(["a"]), np.array([None]), np.zeros(1, "M8[s]"), np.zeros(1, "f4,i4")]
)
def test_what_is_no_number_is_refused_before_anything_is_written(tmp_path: Path, value: Any):
    with pytest.raises(CheckpointError, match="leaf 'head/x' has dtype"):
        Store(tmp_path).save(1, {"head": {"x": value}})
    assert not list(tmp_path.iterdir())


def test_two_leaves_of_one_name_are_refused(tmp_path: Path):
    state = {"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}}
    with pytest.raises(CheckpointError, match="two leaves are called 'a/b'"):
        Store(tmp_path).save(1, state)


def test_a_donated_leaf_is_named(tmp_path: Path):
    state = {"x": jnp.ones(8)}
    jax.jit(lambda s: {"x": s["x"] + 1.0}, donate_argnums=0)(state)
    with pytest.raises(CheckpointError, match="leaf 'x' was donated"):
        Store(tmp_path).save(1, state)


def test_a_leaf_on_other_processes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    leaf = jnp.ones(8)
    monkeypatch.setattr(type(leaf), "is_fully_addressable", property(lambda _: False))
    with pytest.raises(CheckpointError, match="leaf 'x' is spread over several processes"):
        Store(tmp_path).save(1, {"x": leaf})


@pytest.mark.parametrize("meta", [{"loss": np.float32(1)}, {"f": print}])
def test_meta_that_is_not_json_is_refused(tmp_path: Path, meta: dict[Any, Any]):
    with pytest.raises(CheckpointError, match="meta of step 1 is not JSON"):
        Store(tmp_path).save(1, {}, meta=meta)


def test_a_negative_step_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match="step is -1"):
        Store(tmp_path).save(-1, {})
