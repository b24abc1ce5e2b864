"""The digits MLP as a PyTorch loop, eager or compiled (``--compile``).

Without a data loader: batches are cut from tensors.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import digits_arrays
import numpy as np
import torch
from torch import nn

parser = digits_arrays.options(__doc__)
parser.add_argument("--compile", action="store_true", help="the step under torch.compile")
options = parser.parse_args()
torch.set_num_threads(digits_arrays.cores())
x_array, y_array = digits_arrays.training_digits()
x, y = torch.from_numpy(x_array), torch.from_numpy(y_array).long()
torch.manual_seed(0)
model = nn.Sequential(
    nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
)
adam = torch.optim.Adam(model.parameters(), lr=1e-3)
cross_entropy = nn.CrossEntropyLoss()
generator = np.random.default_rng(0)


def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(x), y)


forward = torch.compile(loss_of) if options.compile else loss_of


def epoch() -> int:
    steps = 0
    for chosen in digits_arrays.batches(len(x), generator):
        index = torch.from_numpy(chosen)
        adam.zero_grad()
        forward(x[index], y[index]).backward()
        adam.step()
        steps += 1
    return steps


digits_arrays.time_epochs(epoch, options.epochs, options.samples)
