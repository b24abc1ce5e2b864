"""Milliseconds of products by curvlinops, of net and data of ``ours/curvature_steps.py``."""
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import json
import time

import curvlinops
import digits_arrays
import torch
import torch_model_steps
from torch import nn


class ResNet18(nn.Module):
    """The stem for small images, four stages, mean over space, a dense head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()
        )
        blocks, before = [], 64
        for stage in range(4):
            for block in range(2):
                width, stride = 64 * 2**stage, 2 if stage and not block else 1
                blocks.append(torch_model_steps.Residual(before, width, stride))
                before = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(512, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (batch, 3, height, width) -> logits."""
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


WORKS = {
    "hessian_vector": curvlinops.HessianLinearOperator,
    "gauss_newton_vector": curvlinops.GGNLinearOperator,
}


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--steps", type=int, default=2, help="steps in a sample")
    parser.add_argument("--samples", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(digits_arrays.cores())
    torch.manual_seed(0)
    # In PyTorch's own layout: with channels last its second derivatives take several times as long.
    net = ResNet18().eval()
    for part in net.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False  # second derivatives need what it would overwrite
    x = torch.randn(32, 3, 32, 32)
    params = [each for each in net.parameters() if each.requires_grad]
    matrix = WORKS[options.work](
        net,
        nn.CrossEntropyLoss(),
        params,
        [(x, torch.arange(32) % 10)],
        check_deterministic=False,
    )
    v = [torch.randn_like(each) for each in params]
    samples = []
    for _ in range(options.samples + 1):
        began = time.perf_counter()
        for _ in range(options.steps):
            _ = matrix @ v
        samples.append((time.perf_counter() - began) / options.steps * 1e3)
    print(json.dumps({"samples": samples[1:], "unit": "ms/step"}))


if __name__ == "__main__":
    main()
