"""What a script says of a run in its last line, and what the report shows beside the curves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def last_line(
    split: str,
    metrics: Mapping[str, Any],
    best_step: int,
    steps: int,
    run_dir: Path | str,
    judged_by: str = "accuracy",
) -> str:
    """``test accuracy 0.9889 (best step 340 of 394) · report: runs/a/report.html``."""
    page = f"report: {Path(run_dir) / 'report.html'}"
    if not metrics:
        return f"step {steps} reached, nothing measured on the way · {page}"
    name = judged_by if judged_by in metrics else "loss"
    value = f"{metrics[name]:.4f}" if name == "accuracy" else f"{metrics[name]:.6g}"
    if "step" in metrics:  # a row of training: it need not be the last step, and none is the best
        return f"{split} {name} {value} (step {metrics['step']} of {steps}) · {page}"
    return f"{split} {name} {value} (best step {best_step} of {steps}) · {page}"


def of_summary(summary: Mapping[str, Any], history: list[dict[str, Any]]) -> tuple[str, dict]:
    """The split that a run is judged by, and its metrics: the test, or whatever there is of it.

    Without held-out data, that is the last logged row of training, if there is any.
    """
    for split in ("test", "validation"):
        start = f"{split}_"
        metrics = {k.removeprefix(start): v for k, v in summary.items() if k.startswith(start)}
        if metrics:
            return split, metrics
    return "training", history[-1] if history else {}


def worst_mistakes(experiment: Any, result: Any, count: int = 24) -> dict[str, Any]:
    """The test images that the best parameters are most sure and wrong about.

    Returns:
        ``{"mistakes": […]}`` for ``report.write_page``; nothing where there are no images.
    """
    import numpy as np

    from functorch_kit import train

    test = experiment.data.test
    arrays = getattr(test, "arrays", None)
    if not experiment.is_classification or arrays is None:  # or they were read from files
        return {}
    x = arrays["x"]
    if x.ndim != 4 or x.shape[-1] not in (1, 3):
        return {}
    model = experiment.model(train.as_hparams(experiment.hparams))
    logits = train.predict(model, result.params, result.model_state, test).astype(np.float64)
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    probability = odds / odds.sum(-1, keepdims=True)
    labels, predicted = arrays["y"], logits.argmax(-1)
    sure = probability.max(-1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:count]
    low, high = float(x.min()), float(x.max())
    scale = (high - low) or 1.0
    mistakes = [
        {
            "image": (x[index] - low) / scale,
            "label": int(labels[index]),
            "predicted": int(predicted[index]),
            "probability": float(sure[index]),
        }
        for index in worst
    ]
    return {"mistakes": mistakes}
