"""Jobs of a multirun are composed quickly, and as Hydra composes them."""

import importlib
from typing import Any

import pytest
from omegaconf import OmegaConf

REFUSED = "overwrite=true is for one run: leave it out"  # all jobs are composed by then


@pytest.fixture
def compared(here, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs were composed from files, of those that were compared with Hydra's own."""
    quick = importlib.import_module("hydra_plugins.lanes").SweepLoader
    composed, counts = quick._composed, [0, 0]

    def both(self: Any, master: Any, words: list[str]) -> Any:
        before = len(self._templates)
        found = composed(self, master, words)
        counts[0] += len(self._templates) - before
        counts[1] += 1
        expected = self._loader.load_sweep_config(master, words)
        assert OmegaConf.to_container(found) == OmegaConf.to_container(expected), words
        return found

    monkeypatch.setattr(quick, "_composed", both)
    return counts


@pytest.mark.parametrize(
    ("words", "from_files", "jobs"),
    [
        (["optimizer.learning_rate=0.1,0.2", "seed=0,1"], 1, 4),
        (["experiment=spirals,digits_mlp", "optimizer.learning_rate=1,2,3"], 2, 6),
        (["model=cnn,mlp", "optimizer=sgd,adamw", "model.dropout=0.1,0.2"], 4, 8),
        (["model=mlp", "model.hidden=[8],[4,4],[]", "train.patience=null,3"], 1, 6),
        (["data=npz", "data.path='a b',c", "train.best=loss,accuracy"], 1, 4),
        (["seed=1,${hydra:job.num}", "train.steps=5,6"], 1, 4),
        (["seed=0,1", "hydra.job.config.override_dirname.exclude_keys=[seed]"], 1, 2),
    ],
)
def test_every_job_is_composed_as_hydra_does_it(
    here, compared: list[int], words: list[str], from_files: int, jobs: int
):
    ended = here("train.py", "-m", *words, "overwrite=true", "hydra/launcher=lanes")
    assert ended.complaint == REFUSED
    assert compared == [from_files, jobs]
