"""Shuffled batches of 256 from a memory-mapped file by PyTorch's DataLoader, as its guides show."""
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

BATCH = 256


class Mapped(Dataset):
    def __init__(self, path: str):
        self.x = np.load(path, mmap_mode="c")  # copy-on-write: PyTorch warns of read-only memory

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, number: int) -> torch.Tensor:
        return torch.from_numpy(self.x[number])


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--records", type=int)
    parser.add_argument("--batches", type=int, default=2000, help="in a sample, an epoch at most")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    loader = DataLoader(
        Mapped(options.file),
        batch_size=BATCH,
        shuffle=True,
        num_workers=options.workers,
        drop_last=True,
        persistent_workers=options.workers > 0,
    )
    samples: list[float] = []
    for _ in range(options.samples + 1):
        count, began = 0, 0.0
        for batch in loader:
            assert batch.shape == (BATCH, 784)
            if count == 0:  # workers have started, and the first batch is there
                began = time.perf_counter()
            count += 1
            if count > options.batches:
                break
        samples.append((time.perf_counter() - began) / max(count - 1, 1) * 1e6)
    print(json.dumps({"samples": samples[1:], "unit": "µs/batch"}))


if __name__ == "__main__":
    main()
