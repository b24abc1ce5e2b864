"""Recurrent layers: one step of a cell, scanned over time.

Axes: (batch, time, features). Parameters are those of PyTorch, transposed: ``input/kernel``,
``input/bias``, ``hidden/kernel``, ``hidden/bias``, gates one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from functorch_kit.nn.beside import apart
from functorch_kit.nn.combinators import apply_part, parallel
from functorch_kit.nn.dropout import dropout as dropout_layer
from functorch_kit.nn.errors import LayerError
from functorch_kit.nn.linear import Initializer, dense, lecun_normal
from functorch_kit.nn.scope import part_key, scope
from functorch_kit.types import Model, ModelState, wide_float

Carry = dict[str, Any]

_BESIDE = ("carry", "lengths")
_OUTPUTS = ("sequence", "last", "both")


def _orthogonal(key, shape, dtype=jnp.float32, out_sharding=None) -> Array:
    """Orthogonal rows: gradients neither grow nor fade on their way back (Saxe et al., 2014)."""
    # Drawn in at least 32 bits: there is no QR decomposition in fewer.
    wide = jnp.float32 if jnp.dtype(dtype).itemsize < 4 else dtype
    return jax.nn.initializers.orthogonal()(key, shape, wide, out_sharding).astype(dtype)


class Cell(NamedTuple):
    """What is done at one step.

    Attributes:
        gates: how many vectors of the layer's width the step takes from the input and the hidden.
        carries: names of what passes from step to step; ``hidden`` is the output.
        step: ``step(from_input, from_hidden, carry) -> carry``; the first two are tuples of gates.
    """

    gates: int
    carries: tuple[str, ...]
    step: Callable[[Any, Any, Carry], Carry]


def rnn(features: int, *, activation: Callable[[Array], Array] = jnp.tanh, **options) -> Model:
    """The plain recurrent network: ``h = tanh(W x + a + U h + b)``.

    Elman, 1990.

    Args:
        features: width of the hidden vector.
        activation: in place of the hyperbolic tangent.
        **options: see ``recurrent``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> layer = nn.rnn(4)
        >>> params, _ = layer.init(jax.random.key(0), jax.ShapeDtypeStruct((2, 5, 3), jnp.float32))
        >>> layer.apply(params, (), jnp.ones((2, 5, 3)))[0].shape
        (2, 5, 4)
    """

    def step(x, h, carry):
        return {"hidden": activation(x[0] + h[0])}

    return recurrent(Cell(1, ("hidden",), step), features, **options)


def gru(features: int, **options) -> Model:
    """The gated recurrent unit, with the reset gate behind the product as in PyTorch and cuDNN.

    Cho et al., 2014. Gates in the order reset, update, new.

    Args:
        features: width of the hidden vector.
        **options: see ``recurrent``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> layer = nn.gru(4, output="last")
        >>> params, _ = layer.init(jax.random.key(0), jax.ShapeDtypeStruct((2, 5, 3), jnp.float32))
        >>> layer.apply(params, (), jnp.ones((2, 5, 3)))[0].shape
        (2, 4)
    """

    def step(x, h, carry):
        reset, update = jax.nn.sigmoid(x[0] + h[0]), jax.nn.sigmoid(x[1] + h[1])
        new = jnp.tanh(x[2] + reset * h[2])
        return {"hidden": new + update * (carry["hidden"] - new)}

    return recurrent(Cell(3, ("hidden",), step), features, **options)


def lstm(features: int, **options) -> Model:
    """Long short-term memory.

    Hochreiter and Schmidhuber, 1997, with the forget gate of Gers et al., 2000. Gates in the order
    input, forget, new, output.

    Args:
        features: width of the hidden vector and of the cell.
        **options: see ``recurrent``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> layer = nn.lstm(4)
        >>> params, _ = layer.init(jax.random.key(0), jax.ShapeDtypeStruct((2, 5, 3), jnp.float32))
        >>> params["hidden"]["kernel"].shape
        (4, 16)
        >>> y, _ = layer.apply(params, (), {"x": jnp.ones((2, 5, 3)), "lengths": jnp.array([5, 2])})
        >>> y[1, 2:].any().item()
        False
    """

    def step(x, h, carry):
        enter, forget, new, out = (a + b for a, b in zip(x, h, strict=True))
        cell = jax.nn.sigmoid(forget) * carry["cell"] + jax.nn.sigmoid(enter) * jnp.tanh(new)
        return {"hidden": jax.nn.sigmoid(out) * jnp.tanh(cell), "cell": cell}

    return recurrent(Cell(4, ("hidden", "cell"), step), features, **options)


def recurrent(
    cell: Cell,
    features: int,
    *,
    reverse: bool = False,
    output: str = "sequence",
    stateful: bool = False,
    use_bias: bool = True,
    dropout: float | jax.Array = 0.0,
    kernel_init: Initializer = lecun_normal,
    recurrent_init: Initializer = _orthogonal,
    bias_init: Initializer = jax.nn.initializers.zeros,
    unroll: int = 1,
) -> Model:
    """A cell scanned over time; what ``rnn``, ``gru`` and ``lstm`` are made of.

    The input is x (batch, time, width), or a dict of ``x`` and any of ``lengths`` (batch,): from
    there on x is padding, which changes nothing and gives zeros (a length beyond the time gives
    NaN); and ``carry``: where to begin, a dict of (batch, features); zeros if left out.

    Args:
        cell: what is done at one step.
        features: width of the hidden vector.
        reverse: whether time runs backwards, from the last element that is no padding.
        output: ``"sequence"`` for hidden (batch, time, features), ``"last"`` for the hidden vector
            after the last step (batch, features), ``"both"`` for a dict of the sequence as ``x``
            and of the ``carry`` after the last step.
        stateful: whether the carry is model_state and passes from call to call: for text that is
            read in pieces, and for making it one step at a time.
        use_bias: whether there are biases.
        dropout: rate for the output sequence in training; may be traced.
        kernel_init: initialiser of ``input/kernel`` (width, gates * features).
        recurrent_init: initialiser of ``hidden/kernel`` (features, gates * features).
        bias_init: initialiser of both biases.
        unroll: steps of one iteration of the compiled loop.

    Raises:
        LayerError: an unknown output; a stateful layer that runs backwards or is given a carry.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> add = nn.Cell(1, ("hidden",), lambda x, h, carry: {"hidden": x[0] + carry["hidden"]})
        >>> layer = nn.recurrent(add, 1, kernel_init=jax.nn.initializers.ones)
        >>> x = jnp.arange(4.0).reshape(1, 4, 1)
        >>> params, _ = layer.init(jax.random.key(0), x)
        >>> layer.apply(params, (), x)[0][0, :, 0].tolist()
        [0.0, 1.0, 3.0, 6.0]
    """
    if output not in _OUTPUTS:
        raise LayerError(f"recurrent: output {output!r} is not one of {', '.join(_OUTPUTS)}")
    if stateful and reverse:
        raise LayerError("recurrent: what runs backwards has no state to pass on: leave out one")
    from_input, from_hidden = (
        dense(cell.gates * features, use_bias=use_bias, kernel_init=init, bias_init=bias_init)
        for init in (kernel_init, recurrent_init)
    )
    drop = dropout_layer(dropout)

    def init(key, x_spec):
        x_spec, _ = apart(x_spec, "recurrent", _BESIDE)
        hidden = jax.ShapeDtypeStruct((x_spec.shape[0], features), x_spec.dtype)
        params = {}
        for name, part, spec in (("input", from_input, x_spec), ("hidden", from_hidden, hidden)):
            with scope(name):
                params[name], _ = part.init(part_key(key, name), spec)
        return params, _zeros(cell, hidden) if stateful else ()

    def apply(
        params,
        model_state,
        x: Float[Array, "batch time width"] | Mapping[str, Any],
        *,
        key=None,
        train=False,
    ) -> tuple[Any, ModelState]:
        inputs, given = apart(x, "recurrent", _BESIDE)
        dtype = params["hidden"]["kernel"].dtype
        carry = given.get("carry")
        if stateful and carry is not None:
            raise LayerError("recurrent: a stateful layer has its carry in model_state: give none")
        if carry is None:
            hidden = jax.ShapeDtypeStruct((inputs.shape[0], features), dtype)
            carry = model_state if stateful else _zeros(cell, hidden)
        carry = {name: carry[name].astype(dtype) for name in cell.carries}
        lengths = given.get("lengths")
        if lengths is not None:
            lengths = lengths.astype(jnp.int32)
            fits = (lengths >= 0) & (lengths <= inputs.shape[1])
            carry = jax.tree.map(lambda leaf: jnp.where(fits[:, None], leaf, jnp.nan), carry)

        # The input's share of every step is one product; only the hidden's has to wait.
        ready, _ = apply_part("input", from_input, params, (), inputs, None, train)

        def step(carry, at):
            place, ready = at
            waited, _ = apply_part("hidden", from_hidden, params, (), carry["hidden"], None, train)
            x_gates, h_gates = (jnp.split(each, cell.gates, -1) for each in (ready, waited))
            new = cell.step(x_gates, h_gates, carry)
            if lengths is None:
                return new, new["hidden"]
            live = (place < lengths)[:, None]
            new = jax.tree.map(lambda after, before: jnp.where(live, after, before), new, carry)
            return new, jnp.where(live, new["hidden"], 0)

        places = jnp.arange(inputs.shape[1], dtype=jnp.int32)
        carry, sequence = lax.scan(
            step, carry, (places, ready.swapaxes(0, 1)), reverse=reverse, unroll=unroll
        )
        sequence = sequence.swapaxes(0, 1)
        if output != "last":
            sequence, _ = apply_part("dropout", drop, {}, (), sequence, key, train)
        y = {"sequence": sequence, "last": carry["hidden"], "both": {"x": sequence, "carry": carry}}
        return y[output], _as_given(carry, model_state) if stateful else ()

    return Model(init, apply)


def bidirectional(forward: Model, backward: Model) -> Model:
    """Two recurrent layers, one of them reversed, their outputs side by side.

    Schuster and Paliwal, 1997.

    Args:
        forward: its parameters stand under ``forward/``.
        backward: a layer made with ``reverse=True``; its parameters stand under ``backward/``.

    Returns:
        A Model with the features of both; a carry has the features of both as well.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> layer = nn.bidirectional(nn.gru(4), nn.gru(4, reverse=True))
        >>> params, _ = layer.init(jax.random.key(0), jax.ShapeDtypeStruct((2, 5, 3), jnp.float32))
        >>> layer.apply(params, (), jnp.ones((2, 5, 3)))[0].shape
        (2, 5, 8)
    """

    def side_by_side(forward, backward):
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b], -1), forward, backward)

    return parallel(forward=forward, backward=backward, combine=side_by_side)


def _zeros(cell: Cell, hidden: jax.ShapeDtypeStruct) -> Carry:
    return {name: wide_float(jnp.zeros(hidden.shape, hidden.dtype)) for name in cell.carries}


def _as_given(carry: Carry, before: Carry) -> Carry:
    """A state keeps its dtypes, whatever the layer computed in."""
    return {name: carry[name].astype(before[name].dtype) for name in carry}
