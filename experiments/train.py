"""Train a model, keep its best parameters, and write a report.

python experiments/train.py                                     a CNN on scanned digits
python experiments/train.py experiment=digits_mlp seed=1        another configuration from conf/
python experiments/train.py model=mlp optimizer.learning_rate=3e-4 train.steps=800
python experiments/train.py resume=runs/<run> train.steps=800   go on with a run
python experiments/train.py -m seed=0,1,2                       several runs
python experiments/train.py --cfg job                           show the configuration
"""

import functools

import frame
from outcome import last_line, of_summary, worst_mistakes

from functorch_kit.config import Config, new_run_dir, resumed


def train(config: Config, job: frame.Job) -> None:
    if config.resume is not None:
        config = resumed(config, job.given)
    from functorch_kit.config import build

    experiment = build(config)
    folder = config.run_dir if config.resume else job.folder or config.run_dir
    folder = folder or new_run_dir(config)
    if not config.quiet:
        print(f"run folder: {folder}")
    page = functools.partial(worst_mistakes, experiment)
    result = experiment.fit(run_dir=folder, page=page)
    split, metrics = of_summary(result.summary, result.history)
    best, steps = result.summary["best_step"], result.summary["steps"]
    print(last_line(split, metrics, best, steps, result.run_dir, experiment.judged_by))


if __name__ == "__main__":
    frame.run(train, Config)
