"""Certifying a configuration from the command line."""

import pytest

from functorch_kit import certify
from functorch_kit.certify import Certificate, Difference

FOUND = Certificate(
    certified=False,
    steps=40,
    killed={"published": 20},
    resumed={"published": 20},
    leaves=1,
    rows=48,
    sha256="ab",
    difference=Difference(21, "loss of the train row is 1, and 2", "params/w", 25),
    moment="published",
    device={"platform": "cpu"},
    note=None,
)


def test_a_configuration_that_is_not_exact_ends_with_code_4_and_what_differs(here, monkeypatch):
    asked = {}

    def found(job: str, **options: object) -> Certificate:
        asked.update(options)
        return FOUND

    monkeypatch.setattr(certify, "verify_resume", found)
    ended = here("verify_resume.py", "model=mlp", "steps=30", "moments=[published]", "seed=3")
    assert (ended.code, ended.err) == (4, "")
    assert ended.last_line == (
        "not certified: killed at step 20, resumed from 20, the run differs from step 21 on: loss"
        " of the train row is 1, and 2; the first leaf is 'params/w', seen at step 25"
    )
    assert (asked["steps"], asked["moments"]) == (30, ["published"])
    assert asked["arguments"]["values"]["seed"] == 3
    assert asked["arguments"]["values"]["model"]["name"] == "mlp"


@pytest.mark.soak
@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["model=mlp", "steps=30", "train.ema_decay=0.9", "train.nonfinite=rollback"],
        ["model=mlp", "steps=9", "train.precision=fp16", "train.accumulate=2"],
        ["model=mlp", "optimizer=adamw", "schedule=cosine", "train.patience=2"],
    ],
    ids=lambda settings: " ".join(settings),
)
def test_configurations_are_certified(script, settings: list[str]):
    ended = script("verify_resume.py", *settings)
    assert ended.code == 0, ended
    assert ended.last_line.startswith("certified: killed at step ")
