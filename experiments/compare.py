"""Time one training step in several modes, and see how far each moves the numbers.

python experiments/compare.py                                   the CNN on digits
python experiments/compare.py experiment=two_layer              the lecture's two-layer net
python experiments/compare.py model=mlp variants=[jit,scan] rounds=20
"""

import dataclasses

import frame

from functorch_kit.config import OF_WHOLE_RUNS, Config, new_run_dir, setting

VARIANTS = ("eager", "disable_jit", "jit", "aot", "scan")


@dataclasses.dataclass
class Comparison(Config):
    variants: tuple[str, ...] = setting(VARIANTS, "modes to time", choices=VARIANTS)
    rounds: int = setting(7, "samples of each mode", least=1, most=10_000)
    scan_length: int = setting(10, "steps in one scan", least=1, most=10_000)


def compare(config: Comparison, job: frame.Job) -> None:
    from functorch_kit import program, report, train
    from functorch_kit.config import build

    experiment = build(config)
    chosen = experiment.options
    hparams = train.as_hparams(experiment.hparams, chosen.policy.params)
    x_spec = experiment.data.train.spec["x"]
    state = train.init_state(
        experiment.model,
        experiment.optimizer,
        x_spec,
        hparams=hparams,
        seed=config.seed,
        options=chosen,
    )
    step = train.make_train_step(experiment.objective, experiment.optimizer, chosen)
    options = {name: getattr(config, name) for name in ("variants", "rounds", "scan_length")}
    batch = experiment.data.train(0)
    comparison = program.compare(step, hparams, state, batch, carry=1, **options).to_dict()
    if not config.quiet:
        report.show_comparison(comparison)
    folder = job.folder or new_run_dir(config, config.run_dir or "runs", "compare-")
    print(f"comparison: {report.write_comparison(folder, comparison)}")


if __name__ == "__main__":
    frame.run(compare, Comparison, unused=OF_WHOLE_RUNS)
