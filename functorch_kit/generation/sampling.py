"""From logits to the next token: temperature, top-k, top-p, and keys that depend on the place."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Integer, Key

from functorch_kit.errors import UserError
from functorch_kit.types import wide_float


class GenerationError(UserError, ValueError):
    """What cannot be generated as asked; the message names it and the remedy.

    Example:
        >>> issubclass(GenerationError, UserError)
        True
    """


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen among those that the model thinks likely.

    Attributes:
        temperature: what logits are divided by: below 1 for the likely, above 1 for the unlikely;
            0 takes the most likely token, always.
        top_k: how many of the most likely tokens are left to choose from; all if None.
        top_p: the fewest of the most likely tokens that have this share of the probability are left
            to choose from (nucleus sampling: Holtzman et al., 2020); all if None.

    Raises:
        GenerationError: a value out of range.

    Example:
        >>> Sampling(temperature=0.8, top_k=40)
        Sampling(temperature=0.8, top_k=40, top_p=None)
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        """Refuse what would sample something else, or nothing."""
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise GenerationError(f"temperature is {self.temperature}: give a number from 0 up")
        if self.top_k is not None and self.top_k < 1:
            raise GenerationError(f"top_k is {self.top_k}: give a whole number from 1 up")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise GenerationError(f"top_p is {self.top_p}: give a share above 0 and up to 1")


def filtered(
    logits: Float[Array, "*batch vocabulary"],
    *,
    temperature: float | Float[Array, ""] = 1.0,
    top_k: int | None = None,
    top_p: float | Float[Array, ""] | None = None,
) -> Float[Array, "*batch vocabulary"]:
    """The logits whose softmax is sampled from: ``-inf`` for what is left out.

    First the temperature, then top-k, then top-p of what top-k leaves. Tokens that are as likely as
    the last one that stays, stay too.

    Args:
        logits: of the next token.
        temperature: what they are divided by, above 0; may be traced.
        top_k: see ``Sampling``.
        top_p: see ``Sampling``; may be traced.

    Returns:
        Logits in at least 32 bits.

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np
        >>> logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
        >>> print(np.asarray(jax.nn.softmax(filtered(logits, top_k=2))).round(3))
        [0.625 0.375 0.    0.   ]
        >>> print(np.asarray(jax.nn.softmax(filtered(logits, top_p=0.9))).round(3))
        [0.526 0.316 0.158 0.   ]
    """
    logits = wide_float(logits)
    logits = logits / jnp.asarray(temperature, logits.dtype)
    if top_k is not None and top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if top_p is not None:
        ordered = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
        share = jax.nn.softmax(ordered, axis=-1)
        before = jnp.cumsum(share, axis=-1) - share
        stays = before < jnp.asarray(top_p, share.dtype)
        least = jnp.min(jnp.where(stays, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits


def keys_of(
    seed: Key[Array, ""], numbers: Integer[Array, "batch"], places: Integer[Array, "batch"]
) -> Key[Array, "batch"]:
    """A key for each sample and place, whatever stands beside it in the batch.

    Args:
        seed: key of all samples.
        numbers: which sample each row is.
        places: where in its text the token stands that is drawn.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> numbers, places = jnp.arange(3), jnp.array([7, 7, 9])
        >>> together = keys_of(jax.random.key(0), numbers, places)
        >>> alone = keys_of(jax.random.key(0), numbers[2:], places[2:])
        >>> bool((together[2:] == alone).all())
        True
    """

    def key(number, place):
        return jax.random.fold_in(jax.random.fold_in(seed, number), place)

    return jax.vmap(key)(numbers, places)


def draw(
    keys: Key[Array, "batch"],
    logits: Float[Array, "batch vocabulary"],
    *,
    temperature: float | Float[Array, ""] = 1.0,
    top_k: int | None = None,
    top_p: Any = None,
) -> Int32[Array, "batch"]:
    """The next token of each row.

    Args:
        keys: one for each row.
        logits: of the next token.
        temperature: see ``Sampling``, 0 included; may be traced.
        top_k: see ``Sampling``.
        top_p: see ``Sampling``; may be traced.

    Returns:
        Tokens; -1 where a row's logits are not numbers, and nothing can be said.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> logits = jnp.array([[0.0, 5.0, 1.0], [jnp.nan, 0.0, 0.0]])
        >>> keys = jax.random.split(jax.random.key(0), 2)
        >>> draw(keys, logits, temperature=0.0).tolist()
        [1, -1]
    """
    temperature = jnp.asarray(temperature, wide_float(logits).dtype)
    is_greedy = temperature == 0
    left = filtered(
        logits, temperature=jnp.where(is_greedy, 1, temperature), top_k=top_k, top_p=top_p
    )
    drawn = jax.vmap(jax.random.categorical)(keys, left)
    token = jnp.where(is_greedy, jnp.argmax(logits, axis=-1), drawn)
    is_number = jnp.all(~jnp.isnan(logits), axis=-1)
    return jnp.where(is_number, token, -1).astype(jnp.int32)
