from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import nn

pytestmark = pytest.mark.usefixtures("compiled_quickly")

KEY = jax.random.key(0)
MAKERS = {"rnn": nn.rnn, "gru": nn.gru, "lstm": nn.lstm}
each_cell = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def _filled(layer: nn.Model, *shape: int):
    random = np.random.default_rng(0)
    spec = jax.ShapeDtypeStruct(shape, jnp.float64)
    params, state = jax.eval_shape(lambda: layer.init(KEY, spec))
    params = jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape)), params)
    state = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), state)
    return params, state, jnp.asarray(random.normal(size=shape))


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_an_lstm_by_hand(maybe_jit, x64):
    """Width 1, two steps, every weight 1 and no bias."""
    layer = nn.lstm(1, use_bias=False)
    params = {name: {"kernel": jnp.ones((1, 4))} for name in ("input", "hidden")}
    y, _ = maybe_jit(layer.apply)(params, (), jnp.array([[[0.5], [-1.0]]]))
    hidden = cell = 0.0
    for step, x in enumerate((0.5, -1.0)):
        gate = _sigmoid(x + hidden)
        cell = gate * cell + gate * np.tanh(x + hidden)
        hidden = gate * np.tanh(cell)
        assert float(y[0, step, 0]) == pytest.approx(hidden, rel=1e-12)


@each_cell
def test_a_padded_row_is_the_row_without_its_padding(make, maybe_jit, x64):
    both = nn.bidirectional(make(3, output="both"), make(3, output="both", reverse=True))
    params, _, x = _filled(both, 3, 4, 2)
    lengths = jnp.array([4, 1, 3])
    y, _ = maybe_jit(both.apply)(params, (), {"x": x, "lengths": lengths})
    apply = jax.jit(both.apply)
    for row, length in enumerate(lengths):
        alone, _ = apply(params, (), x[row : row + 1, :length])
        np.testing.assert_allclose(y["x"][row, :length], alone["x"][0], rtol=1e-12)
        for name, carry in y["carry"].items():
            np.testing.assert_allclose(carry[row], alone["carry"][name][0], rtol=1e-12)
        assert not y["x"][row, length:].any()


def test_what_stands_in_the_padding_moves_nothing_and_gets_no_gradient(x64):
    layer = nn.gru(3, reverse=True)
    params, _, x = _filled(layer, 2, 4, 2)
    lengths = jnp.array([2, 4])

    def value(x):
        return jnp.sum(layer.apply(params, (), {"x": x, "lengths": lengths})[0])

    slope = jax.jit(jax.grad(value))(x)
    assert not slope[0, 2:].any()
    assert slope[0, :2].all()
    assert slope[1].all()


@each_cell
def test_text_read_in_pieces_is_text_read_at_once(make, maybe_jit, x64):
    whole, pieces = make(3), make(3, stateful=True)
    params, state, x = _filled(pieces, 2, 5, 2)
    expected, _ = maybe_jit(whole.apply)(params, (), x)
    apply = maybe_jit(pieces.apply)
    first, state = apply(params, state, x[:, :2])
    second, state = apply(params, state, x[:, 2:])
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), expected, rtol=1e-12)


@each_cell
def test_the_last_output_and_the_carry_are_those_of_the_sequence(make, maybe_jit, x64):
    params, _, x = _filled(make(3), 2, 4, 2)
    sequence, last, both = (
        maybe_jit(make(3, output=output).apply)(params, (), x)[0]
        for output in ("sequence", "last", "both")
    )
    np.testing.assert_array_equal(sequence[:, -1], last)
    np.testing.assert_array_equal(both["x"], sequence)
    np.testing.assert_array_equal(both["carry"]["hidden"], last)
    # Begun where the first half ended, the second half is the rest.
    half, _ = maybe_jit(make(3, output="both").apply)(params, (), x[:, :2])
    rest, _ = maybe_jit(make(3).apply)(params, (), {"x": x[:, 2:], "carry": half["carry"]})
    np.testing.assert_allclose(rest, sequence[:, 2:], rtol=1e-12)


def test_running_backwards_is_running_forwards_on_the_reversed(x64):
    params, _, x = _filled(nn.lstm(3), 2, 4, 2)
    backwards, _ = nn.lstm(3, reverse=True).apply(params, (), x)
    forwards, _ = nn.lstm(3).apply(params, (), x[:, ::-1])
    np.testing.assert_allclose(backwards, forwards[:, ::-1], rtol=1e-12)


@pytest.mark.parametrize("length", [-1, 5])
def test_a_length_beyond_the_time_gives_nan_in_its_row_only(length, maybe_jit, x64):
    layer = nn.lstm(3, output="last")
    params, _, x = _filled(layer, 2, 4, 2)
    y, _ = maybe_jit(layer.apply)(params, (), {"x": x, "lengths": jnp.array([length, 4])})
    assert np.isnan(y[0]).all()
    assert np.isfinite(y[1]).all()


def test_hidden_kernels_begin_with_orthogonal_rows_in_any_dtype():
    for dtype in (jnp.float32, jnp.bfloat16):
        spec = jax.ShapeDtypeStruct((1, 2, 3), dtype)
        params, _ = jax.jit(lambda spec=spec: nn.lstm(4).init(KEY, spec))()
        kernel = params["hidden"]["kernel"].astype(jnp.float32)
        tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
        np.testing.assert_allclose(kernel @ kernel.T, np.eye(4), atol=tolerance)


def test_dropout_falls_on_the_output_and_not_on_what_is_remembered(x64):
    dry, wet = nn.lstm(3, output="both"), nn.lstm(3, output="both", dropout=0.5)
    params, _, x = _filled(dry, 2, 4, 2)
    kept, _ = jax.jit(dry.apply)(params, (), x)
    y, _ = jax.jit(lambda x: wet.apply(params, (), x, key=KEY, train=True))(x)
    is_dropped = y["x"] == 0
    assert 0 < is_dropped.mean() < 1
    np.testing.assert_allclose(
        jnp.where(is_dropped, 0, y["x"]), jnp.where(is_dropped, 0, 2 * kept["x"])
    )
    np.testing.assert_array_equal(y["carry"]["hidden"], kept["carry"]["hidden"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.lstm(3, output="all"), "output 'all' is not one of sequence, last, both"),
        (lambda: nn.gru(3, stateful=True, reverse=True), "no state to pass on"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(nn.LayerError, match=message):
        make()


def test_a_name_that_means_nothing_is_refused_and_a_second_carry_too(x64):
    layer = nn.gru(3, stateful=True)
    params, state, x = _filled(layer, 1, 2, 2)
    with pytest.raises(nn.LayerError, match="dict of 'x', 'length': give x and, beside it, carry"):
        layer.apply(params, state, {"x": x, "length": jnp.array([1])})
    with pytest.raises(nn.LayerError, match="has its carry in model_state"):
        layer.apply(params, state, {"x": x, "carry": state})
