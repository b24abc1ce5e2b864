"""Evaluate the best checkpoint of a run.

python experiments/evaluate.py run=runs/<run>                   on the test part
python experiments/evaluate.py run=runs/<run> split=validation
"""

import dataclasses
from pathlib import Path

import frame
from outcome import last_line

from functorch_kit.config import ConfigError, load_run, setting


@dataclasses.dataclass
class Evaluation:
    run: str | None = setting(None, "folder of the run", needed="<folder of a run>")
    split: str = setting("test", "part of the data", choices=("test", "validation"))


def evaluate(config: Evaluation, job: frame.Job) -> None:
    folder = Path(config.run or "")
    run = load_run(folder)
    from functorch_kit import program, train
    from functorch_kit.config import build, restore_best

    experiment = build(run)
    pipeline = getattr(experiment.data, config.split)
    if pipeline is None:
        raise ConfigError(f"data={experiment.data.name} has no {config.split} part to evaluate")
    program.use_cache()
    options = experiment.options
    hparams = train.as_hparams(experiment.hparams, options.policy.params)
    x_spec = experiment.data.train.spec["x"]
    found = restore_best(
        folder, experiment.model, experiment.optimizer, x_spec, hparams, experiment.options
    )
    evaluator = train.Evaluator(
        experiment.objective, pipeline, hparams, found.params, found.model_state, options
    )
    metrics = evaluator(pipeline, hparams, found.params, found.model_state)
    print(last_line(config.split, metrics, found.step, found.steps, folder, experiment.judged_by))


if __name__ == "__main__":
    frame.run(evaluate, Evaluation, "evaluate")
