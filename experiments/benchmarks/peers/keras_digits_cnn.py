"""The main job as a Keras user writes it: a CNN on scikit-learn's digits, Keras 3 on JAX.

Two 3×3 convolutions of 32 and 64 channels (same padding, ReLU), a 2×2 max pool, a dense layer of
128, dropout 0.3, a dense layer of 10; Adam 1e-3; 20 epochs in batches of 64; validation every
epoch; the best checkpoint by validation loss is kept, loaded again, and tested.

Everything is Keras's default: float32, ``jit_compile="auto"``. Whether JAX keeps its compiled
programs on disk is decided outside, by JAX's own variables (``JAX_COMPILATION_CACHE_DIR`` …).
"""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import argparse
import json
import os

os.environ["KERAS_BACKEND"] = "jax"

import keras
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
parser.add_argument("checkpoint", help="where the best model is kept, such as best.keras")
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

keras.utils.set_random_seed(options.seed)

x, y = load_digits(return_X_y=True)
x = x.reshape(-1, 8, 8, 1).astype("float32") / 16
# 1258, 180 and 359 records, each class in proportion.
x_rest, x_test, y_rest, y_test = train_test_split(x, y, test_size=359, stratify=y, random_state=0)
x_train, x_validation, y_train, y_validation = train_test_split(
    x_rest, y_rest, test_size=180, stratify=y_rest, random_state=0
)

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
model.fit(
    x_train,
    y_train,
    batch_size=64,
    epochs=options.epochs,
    validation_data=(x_validation, y_validation),
    callbacks=[
        keras.callbacks.ModelCheckpoint(options.checkpoint, monitor="val_loss", save_best_only=True)
    ],
    verbose=2,  # one line an epoch; the bar of verbose=1 costs time when nobody watches it
)

best = keras.models.load_model(options.checkpoint)
loss, accuracy = best.evaluate(x_test, y_test, verbose=0)
print(f"test accuracy {accuracy:.4f}")
print(json.dumps({"test_accuracy": float(accuracy), "test_loss": float(loss)}))
