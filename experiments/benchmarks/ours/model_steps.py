"""Milliseconds a step of models of this toolkit; ``peers/torch_model_steps.py`` does the same work.

- ``gpt_nano_step``: nanoGPT's recipe for a CPU: 4 layers, 4 heads, 128 wide, 64 of context, batch
  12, vocabulary 65, no dropout; AdamW with decay, clipping at norm 1. Steps as ``fit`` takes them.
- ``resnet18_step``: ResNet-18 in training mode on 16 images of 224 × 224: forward, and backward
  from an output gradient that is drawn once.
- ``functorch_cnn_step``: convolutions 1→32→64 of 3 × 3, a pool, 9216→128→10, batch 64: gradient of
  the mean cross-entropy.
- ``lstm_step``: two LSTMs of 256 over 128 steps of 256 inputs, batch 32: gradient of the mean
  square of what comes out, in the parameters.
- ``gpt_nano_generate``: the same small GPT goes on with 16 tokens, one text at a time: a step is
  one of 48 tokens that are drawn from its law, keys and values being kept.

A sample is so many steps between two waits. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

import functorch_kit as fk

Stretch = Callable[[int], None]
TOKENS_OF_A_TEXT = 48


def gpt_nano() -> Stretch:
    """Steps in the form that ``fit`` chooses, from tokens that are drawn at random."""
    model = fk.models.gpt(fk.models.GPTConfig())
    tokens = np.random.default_rng(0).integers(0, 65, 100_000).astype(np.int32)
    windows = fk.data.Windows(tokens, 64, fk.data.Shuffled(len(tokens) - 64, 12, seed=0))
    hparams = fk.train.as_hparams({"learning_rate": 1e-3})

    def optimizer(h):
        def decays(params):
            return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

        adamw = optax.adamw(h["learning_rate"], 0.9, 0.99, weight_decay=0.1, mask=decays)
        return optax.chain(optax.clip_by_global_norm(1.0), adamw)

    step = fk.train.make_train_step(fk.train.language_model(model), optimizer)
    state = fk.train.init_state(model, optimizer, windows.spec["x"], hparams=hparams)
    form = fk.train.choose_form(step, hparams, state, windows.spec, "auto")
    stepper = fk.train.Stepper(step, windows, hparams, state, form)
    done = 0

    def stretch(steps: int) -> None:
        nonlocal state, done
        state, fetch = stepper(hparams, state, done, steps)
        done += steps
        assert np.isfinite(fetch()["loss"]).all()

    return stretch


def gradient(value, *arguments: jax.Array) -> Stretch:
    """Gradients by one compiled program, one after the other."""
    step = fk.program.compile(jax.grad(value), *arguments, name="gradient")

    def stretch(steps: int) -> None:
        found = None
        for _ in range(steps):
            found = step(*arguments)
        jax.block_until_ready(found)

    return stretch


def resnet18() -> Stretch:
    """Forward in training mode, backward from a given output gradient."""
    model = fk.models.resnet(fk.models.ResNetConfig(depth=18))
    x, slope = _normal(0, (16, 224, 224, 3)), _normal(1, (16, 1000))
    params, model_state = jax.jit(model.init)(jax.random.key(0), x)

    def value(params, model_state, x, slope):
        y, _ = model.apply(params, model_state, x, key=None, train=True)
        return jnp.sum(y * slope)

    return gradient(value, params, model_state, x, slope)


def functorch_net() -> fk.nn.Model:
    """The CNN of functorch's examples."""
    return fk.nn.serial(
        conv_0=fk.nn.conv(32, (3, 3), padding="VALID"),
        relu_0=fk.nn.relu,
        conv_1=fk.nn.conv(64, (3, 3), padding="VALID"),
        relu_1=fk.nn.relu,
        pool=fk.nn.max_pool((2, 2)),
        flatten=fk.nn.flatten(),
        dense=fk.nn.dense(128),
        relu=fk.nn.relu,
        head=fk.nn.dense(10),
    )


def functorch_cnn() -> Stretch:
    """One gradient of that CNN."""
    model = functorch_net()
    x, y = _normal(0, (64, 28, 28, 1)), jnp.arange(64) % 10
    params, _ = jax.jit(model.init)(jax.random.key(0), x)

    def value(params, x, y):
        logits, _ = model.apply(params, (), x)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))

    return gradient(value, params, x, y)


def lstm() -> Stretch:
    """Two LSTMs, one above the other."""
    model = fk.nn.serial(first=fk.nn.lstm(256), second=fk.nn.lstm(256))
    x = _normal(0, (32, 128, 256))
    params, model_state = jax.jit(model.init)(jax.random.key(0), x)

    def value(params, model_state, x):
        return jnp.mean(jnp.square(model.apply(params, model_state, x)[0]))

    return gradient(value, params, model_state, x)


def gpt_nano_generate() -> Stretch:
    """Tokens of the small GPT after a short prompt."""
    config = fk.models.GPTConfig()
    prompt = np.random.default_rng(0).integers(0, 65, 16).astype(np.int32)
    params, _ = fk.models.gpt(config).init(jax.random.key(0), prompt[None])
    generator = fk.generation.Generator(config, params)

    def stretch(steps: int) -> None:
        for seed in range(steps // TOKENS_OF_A_TEXT):
            (text,) = generator([prompt], tokens=TOKENS_OF_A_TEXT, seed=seed)
            assert text.tokens.shape == (TOKENS_OF_A_TEXT,)

    return stretch


WORKS = {
    "gpt_nano_step": gpt_nano,
    "resnet18_step": resnet18,
    "functorch_cnn_step": functorch_cnn,
    "lstm_step": lstm,
    "gpt_nano_generate": gpt_nano_generate,
}


def _normal(seed: int, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--steps", type=int, default=20, help="steps in a sample")
    parser.add_argument("--samples", type=int, default=5)
    options = parser.parse_args()
    fk.program.use_cache()
    stretch, samples = WORKS[options.work](), []
    for _ in range(options.samples + 1):
        began = time.perf_counter()
        stretch(options.steps)
        samples.append((time.perf_counter() - began) / options.steps * 1e3)
    unit = "ms/token" if options.work == "gpt_nano_generate" else "ms/step"
    print(json.dumps({"samples": samples[1:], "unit": unit}))


if __name__ == "__main__":
    main()
