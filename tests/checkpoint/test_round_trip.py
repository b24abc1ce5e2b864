"""What is saved comes back bit for bit, in exactly the structure asked for."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from functorch_kit.checkpoint import CheckpointError, Store, content, leaves, packed, read, snapshot

DTYPES = [
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "float32", "float64", "complex64", "complex128", ">f4", "<i8",
    *sorted(name for name in dir(ml_dtypes) if name.startswith(("bfloat", "float", "int", "uint"))),
]  # fmt: skip


def saved_and_restored(folder: Path, state: Any, like: Any = None) -> Any:
    with Store(folder) as store:
        store.save(3, state)
    return Store(folder).restore(3, state if like is None else like)[0]


def assert_same_bits(found: Any, expected: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_every_dtype_and_shape_comes_back_bit_for_bit(tmp_path: Path):
    rng = np.random.default_rng(0)
    state: dict[str, Any] = {}
    for name in DTYPES:
        kind = getattr(ml_dtypes, name, name)
        if not isinstance(kind, (str, type)) or name in ("finfo", "iinfo"):
            continue
        for shape in [(), (1,), (0,), (3, 0, 2), (5, 3)]:
            bits = rng.integers(0, 2, shape) if "int" in name else rng.standard_normal(shape)
            state[f"{name}{shape}"] = np.asarray(bits).astype(np.dtype(kind))
    assert len(state) > 100
    found = saved_and_restored(tmp_path, state)
    assert_same_bits(found, state)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_every_bit_pattern_of_a_narrow_float_survives(tmp_path: Path, dtype: str):
    width = np.dtype(dtype).itemsize
    patterns = np.arange(256**width, dtype=f"u{width}").view(np.dtype(dtype))
    assert_same_bits(saved_and_restored(tmp_path, {"x": patterns}), {"x": patterns})


def test_nan_payloads_and_negative_zeros_survive(tmp_path: Path):
    bits = np.array([0x7FC00001, 0xFFC12345, 0x80000000, 0x00000001, 0x7F800000], np.uint32)
    assert_same_bits(saved_and_restored(tmp_path, bits.view(np.float32)), bits.view(np.float32))


class Pair(NamedTuple):
    first: Any
    second: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Whole:
    params: Any
    rest: Any
    name: str = dataclasses.field(default="", metadata={"static": True})


def test_dataclasses_tuples_nones_and_empty_parts_keep_their_structure(tmp_path: Path):
    state = Whole(
        params={"conv": [jnp.ones((2, 2)), None], "empty": {}, "pair": Pair(jnp.zeros(1), ())},
        rest=(jnp.int32(7), None, optax.EmptyState(), {"scalar": jnp.float32(1.5)}),
        name="net",
    )
    found = saved_and_restored(tmp_path, state)
    assert_same_bits(found, state)
    assert isinstance(found, Whole)
    assert found.name == "net"
    assert found.rest[1:3] == (None, optax.EmptyState())


def test_an_optimizers_state_comes_back_from_shapes_alone(tmp_path: Path):
    with jax.numpy_dtype_promotion("standard"):
        params = {"kernel": jnp.linspace(0, 1, 6).reshape(2, 3), "bias": jnp.zeros(3)}
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
        opt_state = optimizer.init(params)
        for _ in range(3):
            updates, opt_state = optimizer.update(params, opt_state, params)
            params = optax.apply_updates(params, updates)
    like = jax.eval_shape(lambda: (params, opt_state))
    assert_same_bits(saved_and_restored(tmp_path, (params, opt_state), like), (params, opt_state))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_typed_keys_come_back_typed(tmp_path: Path, impl: str, shape: tuple[int, ...]):
    key = jax.random.key(5, impl=impl)
    key = jax.random.split(key, shape) if shape else key
    for like in (key, jax.eval_shape(lambda: key)):
        found = saved_and_restored(tmp_path / str(type(like).__name__), {"key": key}, {"key": like})
        assert found["key"].dtype == key.dtype
        assert found["key"].shape == shape
        data = jax.random.key_data(found["key"])
        assert np.array_equal(data, jax.random.key_data(key))


@pytest.mark.parametrize("state", [{}, (), {"a": None}, {"a": np.zeros((0, 3), np.int8)}])
def test_a_state_without_a_single_number_can_be_saved(tmp_path: Path, state: Any):
    assert_same_bits(saved_and_restored(tmp_path, state), state)


def test_a_lone_array_is_a_state(tmp_path: Path):
    assert_same_bits(saved_and_restored(tmp_path, jnp.arange(4)), jnp.arange(4))


def test_odd_names_are_kept_apart(tmp_path: Path):
    names = ["..", ".", "", "/", "a", "a/0", "a/b", "a//b", "a.0", "é ü", "%2F", "x" * 300, "a\n"]
    state = {name: np.full(2, float(i)) for i, name in enumerate(names)}
    assert_same_bits(saved_and_restored(tmp_path, state), state)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "3"]


def test_numpy_stays_numpy_and_everything_else_is_jax(tmp_path: Path):
    state = {"host": np.ones(3), "device": jnp.ones(4), "spec": jnp.ones(4)}
    like = {**state, "spec": jax.ShapeDtypeStruct((4,), jnp.float32)}
    found = saved_and_restored(tmp_path, state, like)
    assert isinstance(found["host"], np.ndarray)
    assert isinstance(found["device"], jax.Array)
    assert isinstance(found["spec"], jax.Array)
    assert not found["device"].committed


@pytest.mark.parametrize("spec", [None, PartitionSpec(), PartitionSpec("d")])
def test_the_first_step_reuses_the_memory_of_a_restored_state(spec: PartitionSpec | None):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
    sharding = None if spec is None else NamedSharding(mesh, spec)
    like = {"x": jax.ShapeDtypeStruct((512, 512), np.float32, sharding=sharding)}
    room = np.zeros(512 * 512 + 16, np.float32)
    start = -room.ctypes.data % 64 // 4  # JAX aliases an array that begins at a multiple of 64
    host = {"x": room[start:][: 512 * 512].reshape(512, 512)}
    records = snapshot.take(host).records
    x = leaves.rebuild(host, records, like)["x"]
    places = [shard.data.unsafe_buffer_pointer() for shard in x.addressable_shards]
    y = jax.jit(lambda x: x + 1.0, donate_argnums=0)(x)
    assert x.is_deleted()
    assert [shard.data.unsafe_buffer_pointer() for shard in y.addressable_shards] == places
    assert not host["x"].any()


def test_a_transposed_numpy_array_keeps_its_order(tmp_path: Path):
    state = {"x": np.arange(6.0).reshape(2, 3).T}
    found = saved_and_restored(tmp_path, state)
    assert found["x"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_a_sharded_state_is_saved_whole_and_restored_on_another_sharding(tmp_path: Path):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
    rows, columns = (NamedSharding(mesh, spec) for spec in (PartitionSpec("d"), PartitionSpec()))
    x = jnp.arange(32.0).reshape(8, 4)
    key = jax.random.key(1)
    state = {"x": jax.device_put(x, rows), "key": key}
    specs = {
        "x": jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=columns),
        "key": jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=columns),
    }
    found = saved_and_restored(tmp_path, state, specs)
    assert found["x"].sharding == columns
    assert found["key"].sharding == columns
    assert np.array_equal(found["x"], x)
    assert Store(tmp_path).restore(3, state)[0]["x"].sharding == rows


def test_a_float64_leaf_is_never_cut_to_float32(tmp_path: Path):
    state = {"head": {"kernel": np.ones(2)}}
    with Store(tmp_path) as store:
        store.save(1, state)
    like = {"head": {"kernel": jax.ShapeDtypeStruct((2,), np.float64)}}
    with pytest.raises(CheckpointError, match=r"head/kernel.*float64.*float32.*jax_enable_x64"):
        store.restore(1, like)
    with jax.enable_x64(True):
        assert store.restore(1, like)[0]["head"]["kernel"].dtype == np.float64


def test_read_needs_no_model_and_reads_each_leaf_when_asked(tmp_path: Path):
    state = {"head": Pair(jnp.ones(2, jnp.bfloat16), None), "key": jax.random.key(3)}
    meta = {"config": {"model": "cnn", "sizes": [3, 3]}, "loss": 0.25, "none": None}
    with Store(tmp_path) as store:
        store.save(12, state, meta=meta)
    found = read(tmp_path / "12")
    assert (found.meta, found.step) == (meta, 12)
    assert sorted(found) == ["head/first", "key"]
    assert found.specs["head/first"] == ((2,), np.dtype(ml_dtypes.bfloat16))
    assert found["head/first"].dtype == ml_dtypes.bfloat16
    assert found["key"].tolist() == [0, 3]
    assert all(type(value) is np.ndarray for value in found.values())
    (tmp_path / "12" / packed.NAME).unlink()
    with pytest.raises(FileNotFoundError):
        found["key"]


def test_ten_lines_of_numpy_read_a_checkpoint(tmp_path: Path):
    state: dict[str, Any] = {
        "a": jnp.arange(7.0),
        "b": {"c": jnp.arange(6, dtype=jnp.int8).reshape(2, 3)},
    }
    with Store(tmp_path) as store:
        store.save(1, state)
    leaves_ = json.loads((tmp_path / "1" / "manifest.json").read_text())["content"]["leaves"]
    bytes_ = np.fromfile(tmp_path / "1" / "arrays.bin", np.uint8)
    for path, expected in [("a", state["a"]), ("b/c", state["b"]["c"])]:
        leaf, dtype = leaves_[path], np.dtype(leaves_[path]["dtype"])
        assert leaf["offset"] % 64 == 0
        part = bytes_[leaf["offset"] :][: expected.size * dtype.itemsize]
        assert np.array_equal(part.view(dtype).reshape(leaf["shape"]), expected)


def test_the_versions_that_wrote_it_are_recorded(tmp_path: Path):
    with Store(tmp_path) as store:
        store.save(1, {})
    versions = read(tmp_path / "1").versions
    assert versions["jax"] == jax.__version__
    assert {"python", "functorch_kit", "jaxlib", "numpy", "optax"} < versions.keys()


def test_a_manifest_that_describes_no_arrays_is_refused(tmp_path: Path):
    with Store(tmp_path) as store:
        store.save(1, {"x": jnp.ones(2)})
    for wrong in ({"dtype": "object"}, {"shape": [-1]}, {"dtype": "U1"}):
        record = content.sealed(tmp_path / "1")
        record["leaves"]["x"] |= wrong
        with pytest.raises(CheckpointError, match="leaf 'x' is said to be"):
            leaves.host_specs(record["leaves"])


def test_reading_what_is_no_checkpoint_is_one_line(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"manifest\.json is missing"):
        read(tmp_path)
