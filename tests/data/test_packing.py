from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functorch_kit import data
from functorch_kit.data import DataError, Packed, Sequential, Shuffled, pack

LENGTHS = [5, 1, 9, 3, 2, 2, 4]
TOKENS = np.arange(100, 100 + sum(LENGTHS), dtype=np.int32)
INDEX = pack(LENGTHS, context=4)
COUNT = len(INDEX.start)
ORDERS = {"shuffled": Shuffled(COUNT, 3, seed=2), "sequential": Sequential(COUNT, 3)}


def _documents(lengths) -> list[range]:
    ends = np.cumsum(lengths)
    return [range(end - length, end) for end, length in zip(ends, lengths, strict=True)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 12))
def test_every_token_stands_once_and_no_window_overflows(lengths, context):
    index = pack(lengths, context)
    seen = [
        token
        for start, length in zip(index.start.flat, index.length.flat, strict=True)
        for token in range(start, start + length)
    ]
    assert sorted(seen) == list(range(sum(lengths)))
    assert (index.length.sum(1) <= context).all()
    assert (index.length[:, 0] > 0).all()
    for document in _documents(lengths):
        pieces = (index.start >= document.start) & (index.start < document.stop)
        pieces &= index.length > 0
        assert (index.end[pieces] == document.stop).all()
        # A document is cut into whole windows and one rest.
        assert sorted(index.length[pieces] % context)[:-1] == [0] * (pieces.sum() - 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=40))
def test_no_two_windows_would_fit_into_one(lengths):
    fill = pack(lengths, 12).length.sum(1)
    if len(fill) > 1:
        assert sorted(fill)[0] + sorted(fill)[1] > 12
    assert len(fill) <= max(1, 11 / 9 * np.ceil(sum(lengths) / 6))


def test_short_documents_fill_their_windows():
    lengths = np.random.default_rng(0).integers(1, 60, 2000)
    windows = len(pack(lengths, 64).start)
    assert windows <= 1.02 * lengths.sum() / 64


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_the_batch_inside_a_program_is_the_batch_on_the_host(order, resident, maybe_jit):
    packed = Packed(TOKENS, INDEX, 4, order, resident)
    constant, rows = jax.device_put(packed.constant()), packed.rows(1, 2)
    batch = maybe_jit(packed.batch)
    for offset in range(2):
        row = jax.device_put(jax.tree.map(lambda leaf, at=offset: leaf[at], rows))
        inside, outside = batch(constant, row), packed(1 + offset)
        assert jax.tree.structure(inside) == jax.tree.structure(outside)
        assert jax.tree.structure(inside) == jax.tree.structure(packed.spec)
        for a, b, spec in zip(*map(jax.tree.leaves, (inside, outside, packed.spec)), strict=True):
            np.testing.assert_array_equal(a, b)
            assert (a.shape, a.dtype) == (b.shape, b.dtype) == (spec.shape, spec.dtype)
    for a, spec in zip(jax.tree.leaves(rows), jax.tree.leaves(packed.row_spec), strict=True):
        assert (a.shape[1:], a.dtype) == (spec.shape, spec.dtype)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_segments_number_the_documents_and_positions_count_in_each(order):
    packed = Packed(TOKENS, INDEX, 4, order)
    document_of = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    for step in range(4):
        batch = packed(step)
        names = ("tokens", "segments", "positions")
        for tokens, segments, positions in zip(*(batch["x"][n] for n in names), strict=True):
            for number in range(1, segments.max() + 1):
                piece, place = tokens[segments == number], positions[segments == number]
                assert piece.tolist() == list(range(piece[0], piece[0] + len(piece)))
                assert len(set(document_of[piece - 100])) == 1
                assert place.tolist() == list(range(len(piece)))
            assert (np.diff(segments[segments > 0]) >= 0).all()
            assert (tokens[segments == 0] == 0).all()


def test_every_token_that_follows_one_of_its_document_is_a_target_once():
    """Those over the edge of a window too, for the first tokens of a long document."""
    packed = Packed(TOKENS, INDEX, 4, Sequential(COUNT, 1))
    targets = []
    for step in range(packed.steps or 0):
        batch = packed(step)
        counted = batch["weight"] > 0
        assert (batch["y"] == batch["x"]["tokens"] + 1)[counted].all()
        assert not batch["y"][~counted].any()
        targets += batch["y"][counted].tolist()
    expected = [100 + token for document in _documents(LENGTHS) for token in document[1:]]
    assert sorted(targets) == expected


def test_windows_cross_to_the_device_as_numbers():
    packed = Packed(TOKENS, INDEX, 4, ORDERS["shuffled"])
    assert sum(leaf.nbytes for leaf in packed.rows(0, 10).values()) == 10 * 3 * 4
    assert packed.steps is None
    assert packed.steps_per_epoch == -(-COUNT // 3)
    assert Packed(TOKENS, INDEX, 4, ORDERS["shuffled"], False).constant() == {}


def test_whole_documents_are_held_out():
    texts = ["alpha", "", "beta", "gamma", "delta", "epsilon"]
    parts = data.documents(texts, batch_size=1, context=16, validation=0.4)
    decode = parts.vocabulary.decode
    assert decode(parts.train.tokens) == "alphabetagamma"
    assert decode(parts.validation.tokens) == "deltaepsilon"
    assert parts.test is None
    total = sum(parts.validation(step)["weight"].sum() for step in range(parts.validation.steps))
    assert total == len("deltaepsilon") - 2
    assert data.documents(texts, batch_size=1, validation=0).validation is None


def test_a_batch_depends_on_seed_and_step_alone():
    texts = [chr(97 + i % 26) * (1 + i % 7) for i in range(60)]
    one, same, other = (
        data.documents(texts, batch_size=3, context=8, seed=seed).train for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(one(7)["x"]["tokens"], same(7)["x"]["tokens"])
    assert (one(7)["x"]["tokens"] != other(7)["x"]["tokens"]).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pack([], 4), "no documents to pack"),
        (lambda: pack([3, 0, 2], 4), "document 1 is empty: leave it out"),
        (lambda: pack([3], 0), "context is 0"),
        (lambda: data.documents(["a", "b"], batch_size=3), "batch_size is 3, but the documents"),
        (lambda: data.documents(["a", "b"], batch_size=0), "batch_size is 0"),
        (lambda: data.documents(["a"], batch_size=1), "1 documents leave none to train on"),
        (lambda: data.documents([], batch_size=1), "0 documents leave none to train on"),
        (lambda: data.documents(["a"], batch_size=1, validation=1.0), "validation is 1.0"),
    ],
)
def test_documents_that_cannot_be_packed_are_refused_in_one_line(make, message):
    with pytest.raises(DataError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
