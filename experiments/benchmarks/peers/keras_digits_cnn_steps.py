"""The digits CNN by Keras 3's ``fit`` on JAX, without callbacks but the clock."""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import os
import time

os.environ["KERAS_BACKEND"] = "jax"

import digits_arrays
import keras
from keras import layers

options = digits_arrays.options(__doc__).parse_args()
x, y = digits_arrays.training_digits()
# Full batches only, as the others: a ragged last one would be a second compiled program.
steps = len(x) // digits_arrays.BATCH
x = x[: steps * digits_arrays.BATCH].reshape(-1, 8, 8, 1)
y = y[: steps * digits_arrays.BATCH]

model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.Conv2D(64, 3, padding="same", activation="relu"),
        layers.MaxPool2D(2),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dropout(0.3),
        layers.Dense(10),
    ]
)
model.compile(
    optimizer=keras.optimizers.Adam(1e-3),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
ends: list[float] = []


def note_the_time(epoch: int, logs: object) -> None:
    if (epoch + 1) % options.epochs == 0:
        ends.append(time.perf_counter())


model.fit(
    x,
    y,
    batch_size=digits_arrays.BATCH,
    epochs=options.epochs * (options.samples + 1),
    verbose=0,
    callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=note_the_time)],
)
digits_arrays.print_stretches(ends, steps * options.epochs)
