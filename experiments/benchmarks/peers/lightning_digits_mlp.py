"""The digits MLP by Lightning's ``Trainer``: no logger, no bar, no checkpoint, only the clock."""
# pyright: reportMissingImports=false

from __future__ import annotations

import logging
import time
import warnings

import digits_arrays
import lightning
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

options = digits_arrays.options(__doc__).parse_args()
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
# It advises worker processes for the loader, which cost more than they bring for 1,258 records.
warnings.filterwarnings("ignore")
lightning.seed_everything(0)
ends: list[float] = []


class Digits(lightning.LightningModule):
    """64-128-128-10 and its loss."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
        )
        self.cross_entropy = nn.CrossEntropyLoss()

    def training_step(self, batch, index):
        """The loss of one batch."""
        x, y = batch
        return self.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        """Adam, as everywhere in this benchmark."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)

    def on_train_epoch_end(self):
        """Note when a stretch ends."""
        if (self.current_epoch + 1) % options.epochs == 0:
            ends.append(time.perf_counter())


x, y = digits_arrays.training_digits()
records = TensorDataset(torch.from_numpy(x), torch.from_numpy(y).long())
# The sampler gives whole batches, so that the loader indexes once a batch and collates nothing.
sampler = BatchSampler(RandomSampler(records), digits_arrays.BATCH, drop_last=True)
loader = DataLoader(records, sampler=sampler, batch_size=None)
trainer = lightning.Trainer(
    max_epochs=options.epochs * (options.samples + 1),
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(Digits(), loader)
digits_arrays.print_stretches(ends, len(loader) * options.epochs)
