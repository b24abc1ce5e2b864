"""Milliseconds a step of what ``ours/transform_steps.py`` does with functorch's CNN, in PyTorch.

``per_sample_gradients``: by ``torch.func``'s vmap and by a loop over the examples, in turns; the
samples of the better one are printed, and which it was. ``dp_step``: Opacus' optimizer, clipping at
1 with noise of 1.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable

import digits_arrays
import torch
from torch import nn
from torch.nn import functional

Stretch = Callable[[int], None]


def functorch_cnn() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """The net, images and labels."""
    net = nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
    return net, torch.randn(64, 1, 28, 28), torch.arange(64) % 10


def by_vmap() -> Stretch:
    net, x, y = functorch_cnn()
    params = {name: value.detach() for name, value in net.named_parameters()}

    def loss(params: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits = torch.func.functional_call(net, params, (x[None],))
        return functional.cross_entropy(logits, y[None])

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))

    def stretch(steps: int) -> None:
        for _ in range(steps):
            gradients(params, x, y)

    return stretch


def by_loop() -> Stretch:
    net, x, y = functorch_cnn()
    params = list(net.parameters())

    def stretch(steps: int) -> None:
        for _ in range(steps):
            each = [
                torch.autograd.grad(functional.cross_entropy(net(one), label), params)
                for one, label in zip(x.split(1), y.split(1), strict=True)
            ]
            [torch.stack(leaves) for leaves in zip(*each, strict=True)]

    return stretch


def dp_step() -> Stretch:
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    warnings.simplefilter("ignore")  # of hooks, which are Opacus' way
    net, x, y = functorch_cnn()
    private = GradSampleModule(net)
    optimizer = DPOptimizer(
        torch.optim.SGD(private.parameters(), lr=0.05),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=len(x),
    )

    def stretch(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            functional.cross_entropy(private(x), y).backward()
            optimizer.step()

    return stretch


WORKS = {
    "per_sample_gradients": {"vmap": by_vmap, "loop": by_loop},
    "dp_step": {"opacus": dp_step},
}


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--steps", type=int, default=8, help="steps in a sample")
    parser.add_argument("--samples", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(digits_arrays.cores())
    torch.manual_seed(0)
    stretches = {way: make() for way, make in WORKS[options.work].items()}
    samples: dict[str, list[float]] = {way: [] for way in stretches}
    for _ in range(options.samples + 1):
        for way, stretch in stretches.items():
            began = time.perf_counter()
            stretch(options.steps)
            samples[way].append((time.perf_counter() - began) / options.steps * 1e3)
    best = min(samples, key=lambda way: statistics.median(samples[way][1:]))
    print(json.dumps({"samples": samples[best][1:], "unit": "ms/step", "way": best}))


if __name__ == "__main__":
    main()
