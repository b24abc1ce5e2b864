"""The settings of training itself: how long, how a step is made, what is watched on the way."""

from __future__ import annotations

import dataclasses

from functorch_kit.config.settings import setting

_COUNT = {"least": 1, "most": 100_000_000}
_STEPS = {"least": 1, "most": 2**31 - 1}  # the state counts its steps in 32 bits
_SHARE = {"least": 0, "below": 1}
_PATTERNS = {"fewest": 0, "entry": "path patterns"}


def _clip(text: str):
    return setting(None, f"{text}; null: any", above=0, most=1e9, traced=True)


@dataclasses.dataclass
class Train:
    """How long, in which batches, and what is watched on the way."""

    steps: int = setting(394, "optimizer steps in all", **_STEPS)
    batch_size: int = setting(64, "records in a batch", **_COUNT)
    eval_every: int | None = setting(20, "steps between evaluations; null: an epoch", **_STEPS)
    checkpoint_every: int | None = setting(
        None, "steps between checkpoints; null: at each evaluation", **_STEPS
    )
    log_every: int = setting(10, "steps between logged training rows", **_STEPS)
    keep_latest: int = setting(2, "checkpoints that stay because they are the newest", **_COUNT)
    keep_best: int = setting(
        1, "checkpoints that stay because they are the best", least=0, most=100_000_000
    )
    keep_every: int | None = setting(
        None, "checkpoints of steps that it divides stay as well; null: none", **_STEPS
    )
    form: str = setting(
        "auto",
        "how steps are dispatched; auto asks the backend",
        choices=("auto", "chunk", "single"),
    )
    label_smoothing: float = setting(
        0.0, "share of the target spread over all classes", **_SHARE, traced=True, off=0.0
    )
    init_scale: float = setting(
        1.0, "factor of the initial weights; biases and scales stay", above=0, most=1e6,
        traced=True, off=1.0,
    )  # fmt: skip
    schedule_steps: int | None = setting(
        None, "steps that the schedule is made for; null: train.steps", **_STEPS, traced=True
    )
    clip_norm: float | None = _clip("largest global norm of the gradient")
    clip_value: float | None = _clip("largest absolute value of its entries")
    clip_adaptive: float | None = _clip("largest ratio of a unit's gradient to its weights")
    patience: int | None = setting(
        None, "evaluations without improvement before stopping; null: never", **_STEPS
    )
    best: str = setting("loss", "metric of validation that the best checkpoint is best in")
    best_mode: str = setting(
        "auto",
        "which way is better; auto goes by the metric's name",
        choices=("auto", "min", "max"),
    )
    max_seconds: float | None = setting(
        None, "time after which the run saves and ends; null: any", above=0, most=1e9
    )
    accumulate: int = setting(1, "micro-batches that a step is made of", **_COUNT)
    precision: str = setting(
        "float32", "what layers compute in", choices=("float32", "bf16", "fp16", "float64")
    )
    precision_keep: tuple[str, ...] = setting(
        (), "parts that compute in float32 all the same", **_PATTERNS
    )
    remat: tuple[str, ...] = setting(
        (), "parts whose inner values are computed again on the way back", **_PATTERNS
    )
    remat_policy: str = setting(
        "nothing",
        "what they keep all the same",
        choices=("nothing", "dots", "dots_without_batch"),
    )
    frozen: tuple[str, ...] = setting((), "parameters that are not trained", **_PATTERNS)
    ema_decay: float | None = setting(
        None, "decay of an average of the parameters; null: none", **_SHARE, traced=True
    )
    evaluate: str = setting(
        "auto",
        "the parameters that are evaluated; auto takes an average where there is one",
        choices=("auto", "params", "ema"),
    )
    nonfinite: str = setting(
        "off",
        "what happens to a step with a NaN or an infinity in it",
        choices=("off", "skip", "raise", "rollback"),
    )
    max_rollbacks: int = setting(3, "how often rollback may go back", least=0, most=1_000_000)
    gradient_norm: bool = setting(False, "whether the gradient's global norm is measured")


OF_WHOLE_RUNS = (
    "resume",
    "overwrite",
    *(f"mesh.{name}" for name in ("data", "fsdp", "sequence", "tensor")),
    *(
        f"train.{name}"
        for name in (
            "steps",
            "max_seconds",
            "eval_every",
            "checkpoint_every",
            "log_every",
            "keep_latest",
            "keep_best",
            "keep_every",
            "form",
            "patience",
            "best",
            "best_mode",
            "evaluate",
            "max_rollbacks",
        )
    ),
)
"""Settings that mean nothing where a few steps are taken and nothing is evaluated or kept."""
