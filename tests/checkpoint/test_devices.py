"""Saved from several devices, restored on another number of them, bit for bit."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from functorch_kit.checkpoint import Damaged, Store, packed, read, sharded, snapshot

ROOT = Path(__file__).parents[2]
ROWS = PartitionSpec("d")
RESTORE = """
import sys
import jax, jax.numpy as jnp, numpy as np
count = int(sys.argv[1])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", count)
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from functorch_kit.checkpoint import Store
mesh = jax.make_mesh((count,), ("d",), axis_types=(AxisType.Auto,))
place = NamedSharding(mesh, PartitionSpec("d"))
like = {
    "x": jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=place),
    "half": jax.ShapeDtypeStruct((8,), jnp.bfloat16, sharding=place),
    "narrow": jax.ShapeDtypeStruct((8,), jnp.float8_e4m3fn, sharding=place),
    "step": jax.ShapeDtypeStruct((), jnp.int32),
    "key": jax.eval_shape(lambda: jax.random.key(0)),
}
state, meta = Store(sys.argv[2]).restore(3, like)
assert len(state["x"].sharding.device_set) == count
assert np.array_equal(state["x"], np.arange(32.0).reshape(8, 4))
assert np.array_equal(state["half"].astype("float32"), np.arange(8.0))
assert np.array_equal(state["narrow"].astype("float32"), np.arange(8.0))
assert int(state["step"]) == 3
assert jax.random.key_data(state["key"]).tolist() == [0, 9]
y = jax.jit(lambda s: s["x"].sum())(state)
assert float(y) == 496.0
print("restored", count)
"""


def spread_state() -> dict:
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
    rows, everywhere = NamedSharding(mesh, ROWS), NamedSharding(mesh, PartitionSpec())
    return {
        "x": jax.device_put(jnp.arange(32.0).reshape(8, 4), rows),
        "half": jax.device_put(jnp.arange(8, dtype=jnp.bfloat16), rows),
        "narrow": jax.device_put(jnp.arange(8.0).astype(jnp.float8_e4m3fn), rows),
        "step": jax.device_put(jnp.int32(3), everywhere),
        "key": jax.random.key(9),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spread")
    with Store(folder) as store:
        store.save(3, spread_state())
    return folder


@pytest.mark.parametrize("count", [1, 2])
def test_four_devices_save_and_another_number_restores(folder: Path, count: int):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RESTORE, str(count), str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == f"restored {count}\n", done.stderr


def test_only_leaves_that_are_spread_are_written_by_orbax(folder: Path):
    record = read(folder / "3")._leaves
    assert {name for name, leaf in record.items() if "offset" not in leaf} == {"x", "half"}
    assert (folder / "3" / sharded.NAME).is_dir()


def test_a_spread_leaf_is_read_without_the_model(folder: Path):
    found = read(folder / "3")
    assert found["x"].tolist() == np.arange(32.0).reshape(8, 4).tolist()
    assert found["half"].tolist() == list(range(8))
    assert found["step"] == 3


def test_a_spread_state_may_be_donated_and_comes_back_spread(tmp_path: Path):
    state = spread_state()
    place = state["x"].sharding
    step = jax.jit(lambda s: {**s, "x": s["x"] + 1.0}, donate_argnums=0)
    with Store(tmp_path) as store:
        store.save(1, state)
        after = step(state)
        assert state["x"].is_deleted()
    found, _ = store.restore(1, after)
    assert found["x"].sharding == place
    assert np.array_equal(found["x"], np.arange(32.0).reshape(8, 4))


def test_damage_to_a_spread_leaf_is_found(folder: Path, tmp_path: Path):
    with Store(tmp_path) as store:
        store.save(3, spread_state())
    files = [path for path in (tmp_path / "3").rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] if path.name != packed.NAME else whole[::-1])
        if whole:
            with pytest.raises(Damaged, match=path.name):
                Store(tmp_path).restore(3, spread_state())
        path.write_bytes(whole)


def test_a_state_too_large_to_be_copied_on_its_devices_is_copied_on_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(snapshot, "_has_room", lambda arrays: False)
    taken = snapshot.take(spread_state())
    assert taken.spread == {}
    assert taken.view("x", spread_state()["x"]).tolist() == np.arange(32.0).reshape(8, 4).tolist()


def test_leaves_of_an_accelerator_are_copied_there_and_fetched_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As on a GPU, as far as a CPU can tell: the copies are arrays that nobody else holds."""
    monkeypatch.setattr(snapshot, "_is_in_main_memory", lambda leaf: False)
    state = {**spread_state(), "w": jnp.arange(600.0).reshape(20, 30)}
    taken = snapshot.take(state)
    assert taken.device.keys() == {"w", "narrow", "step", "key"}
    places = [leaf["w"].unsafe_buffer_pointer() for leaf in (taken.device, state)]
    assert places[0] != places[1]
    with Store(tmp_path) as store:
        store.save(1, state)
        after = jax.jit(lambda s: {**s, "w": s["w"] * 2.0}, donate_argnums=0)(state)
        assert state["w"].is_deleted()
    found, _ = store.restore(1, after)
    assert np.array_equal(found["w"], np.arange(600.0).reshape(20, 30))
    assert np.array_equal(found["narrow"].astype("float32"), np.arange(8.0))
    assert jax.random.key_data(found["key"]).tolist() == [0, 9]
