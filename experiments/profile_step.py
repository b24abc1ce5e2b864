"""Say where the time of a training step goes, by layer and by kind, and what bounds it.

python experiments/profile_step.py                              the CNN on digits
python experiments/profile_step.py experiment=digits_mlp        another configuration from conf/
python experiments/profile_step.py model=mlp steps=20           more steps under the profiler
"""

import dataclasses

import frame

from functorch_kit.config import OF_WHOLE_RUNS, Config, new_run_dir, setting


@dataclasses.dataclass
class Profile(Config):
    steps: int = setting(10, "training steps to record", least=1, most=1_000)


def profile(config: Profile, job: frame.Job) -> None:
    from functorch_kit import program, report, train
    from functorch_kit.config import build

    experiment = build(config)
    hparams = train.as_hparams(experiment.hparams, experiment.options.policy.params)
    x_spec = experiment.data.train.spec["x"]
    state = train.init_state(
        experiment.model,
        experiment.optimizer,
        x_spec,
        hparams=hparams,
        seed=config.seed,
        options=experiment.options,
    )
    step = train.make_train_step(experiment.objective, experiment.optimizer, experiment.options)
    arguments = (hparams, state, experiment.data.train(0))
    # The state is donated, as it is in a run.
    compiled = program.compile(step, *arguments, name="train_step", donate=(1,))
    folder = job.folder or new_run_dir(config, config.run_dir or "runs", "profile-")
    found = program.profile(compiled, *arguments, carry=1, steps=config.steps, folder=folder)
    model = train.resolve(experiment.model, hparams)
    views = {"jaxpr": str(compiled.jaxpr), "hlo": compiled.hlo()}
    layers = program.summary(model, x_spec, train=True)
    report.write_views(folder, name=compiled.name, summary=layers, **views)
    roof = program.roofline(compiled, found.plain_seconds)
    report.write_roofline(folder, roof)
    if not config.quiet:
        report.show_profile(found)
        calls = program.library_calls(compiled)
        print(f"  library calls: {', '.join(f'{name} {n}' for name, n in calls.items()) or 'none'}")
        report.show_roofline(roof)
    print(f"profile: {report.write_profile(folder, found)}")


if __name__ == "__main__":
    frame.run(profile, Profile, unused=OF_WHOLE_RUNS)
