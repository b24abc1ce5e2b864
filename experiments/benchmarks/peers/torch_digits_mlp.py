"""The digits MLP as an eager PyTorch loop, without a data loader: batches are cut from tensors."""
# pyright: reportMissingImports=false

from __future__ import annotations

import digits_arrays
import numpy as np
import torch
from torch import nn

options = digits_arrays.options(__doc__).parse_args()
x_array, y_array = digits_arrays.training_digits()
x, y = torch.from_numpy(x_array), torch.from_numpy(y_array).long()
torch.manual_seed(0)
model = nn.Sequential(
    nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
)
adam = torch.optim.Adam(model.parameters(), lr=1e-3)
cross_entropy = nn.CrossEntropyLoss()
generator = np.random.default_rng(0)


def epoch() -> int:
    steps = 0
    for chosen in digits_arrays.batches(len(x), generator):
        index = torch.from_numpy(chosen)
        adam.zero_grad()
        loss = cross_entropy(model(x[index]), y[index])
        loss.backward()
        adam.step()
        steps += 1
    return steps


digits_arrays.time_epochs(epoch, options.epochs, options.samples)
