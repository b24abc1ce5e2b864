"""The digits CNN as a PyTorch loop, channels last, eager or compiled (``--compile``)."""
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
torch.manual_seed(0)
x_array, y_array = digits_arrays.training_digits()
images = torch.from_numpy(x_array.reshape(-1, 1, 8, 8))
x = images.contiguous(memory_format=torch.channels_last)
y = torch.from_numpy(y_array).long()
model = nn.Sequential(
    *(nn.Conv2d(1, 32, 3, padding="same"), nn.ReLU()),
    *(nn.Conv2d(32, 64, 3, padding="same"), nn.ReLU()),
    nn.MaxPool2d(2),
    nn.Flatten(),
    *(nn.Linear(1024, 128), nn.ReLU(), nn.Dropout(0.3)),
    nn.Linear(128, 10),
).to(memory_format=torch.channels_last)
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
