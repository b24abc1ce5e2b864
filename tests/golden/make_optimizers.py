"""Where PyTorch's optimizers are after 1, 10 and 100 steps, in float64: ``optimizers.npz``.

Run once, where PyTorch is installed: ``python tests/golden/make_optimizers.py``. The settings that
make optax equal stand beside each in ``tests/golden/test_optimizers.py``. The gradient at step t is
``noise[t] + pull * parameters``, so that a step depends on those before.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
STEPS, KEPT, PULL = 100, (1, 10, 100), 0.3
SHAPES = {"kernel": (2, 3), "bias": (2,)}

# Name -> class in torch.optim, options.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {"lr": 0.1}),
    "momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "weight decay": ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.02}),
    "adam": ("Adam", {"lr": 0.02, "betas": (0.9, 0.99), "eps": 1e-8}),
    "adamw": ("AdamW", {"lr": 0.02, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.05}),
    "nadam": ("NAdam", {"lr": 0.02, "betas": (0.9, 0.99), "momentum_decay": 1e6}),
    "radam": ("RAdam", {"lr": 0.02, "betas": (0.9, 0.99), "eps": 0.0}),
    "adamax": ("Adamax", {"lr": 0.02, "betas": (0.9, 0.99), "eps": 1e-8}),
    "adagrad": ("Adagrad", {"lr": 0.1, "eps": 0.0}),
    "adadelta": ("Adadelta", {"lr": 1.0, "rho": 0.9, "eps": 1e-6}),
    "rmsprop": ("RMSprop", {"lr": 0.02, "alpha": 0.9, "eps": 1e-8}),
    "rmsprop with momentum": ("RMSprop", {"lr": 0.02, "alpha": 0.9, "momentum": 0.9}),
    "rmsprop centered": ("RMSprop", {"lr": 0.02, "alpha": 0.9, "centered": True}),
}


def main() -> None:
    """Write the file."""
    torch = importlib.import_module("torch")
    torch.set_default_dtype(torch.float64)  # or NAdam keeps a product of its own in float32
    random = np.random.default_rng(0)
    start = {name: random.standard_normal(shape) for name, shape in SHAPES.items()}
    noise = {name: random.standard_normal((STEPS, *shape)) for name, shape in SHAPES.items()}
    arrays = {f"start|{name}": value for name, value in start.items()}
    arrays |= {f"noise|{name}": value for name, value in noise.items()}
    for setting, (kind, options) in SETTINGS.items():
        at = {name: torch.tensor(value, requires_grad=True) for name, value in start.items()}
        optimizer = getattr(torch.optim, kind)(at.values(), foreach=False, **options)
        for step in range(1, STEPS + 1):
            for name, tensor in at.items():
                tensor.grad = torch.tensor(noise[name][step - 1]) + PULL * tensor.detach()
            optimizer.step()
            if step in KEPT:
                for name, tensor in at.items():
                    arrays[f"{setting}|{step}|{name}"] = tensor.detach().numpy().copy()
    arrays["torch"] = np.array(torch.__version__)
    np.savez_compressed(HERE / "optimizers.npz", **arrays)  # pyright: ignore[reportArgumentType]
    print(f"{len(SETTINGS)} optimizers, {(HERE / 'optimizers.npz').stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
