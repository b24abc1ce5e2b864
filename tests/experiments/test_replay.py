"""Replaying a step from the command line."""

import json
from pathlib import Path

TINY = ["model=mlp", "model.hidden=[8]", "quiet=true", "run_dir=a", "train.steps=9"]
EXPLODING = [
    "data=gaussian",
    "model.dropout=0",
    "optimizer=sgd",
    "optimizer.learning_rate=1e6",
    "train.checkpoint_every=1",
]


def test_a_run_that_failed_is_replayed_by_its_folder_alone(script, tmp_path: Path):
    failed = script("train.py", *TINY, *EXPLODING)
    assert failed.code == 3, failed
    failure = json.loads((tmp_path / "a" / "failure.json").read_text())
    ended = script("replay.py", "run=a")
    assert ended.code == 0, ended.err
    written = json.loads((tmp_path / "a" / "replay.json").read_text())
    assert written["failed_step"] == failure["step"]
    assert written["checkpoint"] == written["step"] - 1
    # Weights of about 1e27 times activations of about 1e27: beyond float32.
    assert (written["finding"]["path"], written["finding"]["direction"]) == ("head", "forward")
    assert written["finding"]["primitive"] == "dot_general"
    assert "first non-finite value: head, forward: dot_general" in ended.out
    assert ended.last_line == "replay: a/replay.json"

    healthy = script("replay.py", "run=a", "step=1")
    assert healthy.code == 0, healthy.err
    assert "every value of the step is finite" in healthy.out


def test_a_healthy_run_is_refused_without_a_step(script, tmp_path: Path):
    assert script("train.py", *TINY).code == 0
    assert script("replay.py", "run=a").complaint == (
        "run folder 'a' has no failure.json: no step failed; give step=<1 to 9> to replay any other"
    )
    assert not (tmp_path / "a" / "replay.json").exists()
