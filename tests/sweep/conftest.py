"""Small jobs to sweep over."""

from collections.abc import Callable
from typing import Any

import pytest

from functorch_kit import config


@pytest.fixture
def job() -> Callable[..., config.Config]:
    """``job(learning_rate=…, seed=…, …)``: an MLP on digits, 12 steps unless said otherwise."""

    def make(
        *,
        learning_rate: float = 0.01,
        seed: int = 0,
        hidden: tuple[int, ...] = (8,),
        dropout: float = 0.1,
        optimizer: Any = None,
        model: Any = None,
        **train: Any,
    ) -> config.Config:
        made = config.Config(
            model=model or config.MLP(hidden=hidden, dropout=dropout),
            optimizer=optimizer or config.SGD(learning_rate, momentum=0.9),
            seed=seed,
            quiet=True,
        )
        settings = {"steps": 12, "eval_every": 4, "batch_size": 16} | train
        for name, value in settings.items():
            setattr(made.train, name, value)
        return config.from_dict(config.to_dict(made))

    return make
