"""Time one training step in several modes, and see how far each moves the numbers.

python experiments/compare.py                                   the CNN on digits
python experiments/compare.py experiment=two_layer              the lecture's two-layer net
python experiments/compare.py model=mlp variants=[jit,scan=10+donate,bf16+accumulate=2] rounds=20
python experiments/compare.py variants=[jit,sharded=2,sharded=4]          on virtual devices
python experiments/compare.py contenders=[torch_eager,keras] peer_python=<python with the peers>

A variant is words joined by +. One of eager, disable_jit, jit, aot, scan[=<steps>] says how the
step is executed; donate, vmap, sharded=<devices>, cold, warm, accumulate=<micro-batches>, remat,
bf16 and fp16 combine with it and with each other. The first variant is what the others are compared
with. Left behind are compare.json, compare.html, a chart, the graph of layers and the program.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import frame

from functorch_kit.config import OF_WHOLE_RUNS, Config, ConfigError, new_run_dir, setting

CONTENDERS = ("torch_eager", "torch_compiled", "keras", "flax_nnx", "equinox")


@dataclasses.dataclass
class Comparison(Config):
    variants: tuple[str, ...] | None = setting(
        None, "modes to time: words joined by +; null: eleven of them", examples=("eager", "jit")
    )
    steps: int = setting(10, "steps after which states are compared", least=1, most=10_000)
    rounds: int = setting(7, "samples of each mode", least=1, most=10_000)
    seconds: float = setting(3.0, "time for the samples of one mode", least=0, most=3600)
    contenders: tuple[str, ...] = setting(
        (), "other frameworks, in processes of their own", choices=CONTENDERS, fewest=0
    )
    peer_python: str | None = setting(None, "the interpreter that has them; null: this one")
    pairs: int = setting(3, "runs of ours and of each contender, in turn", least=1, most=1000)


def compare(config: Comparison, job: frame.Job) -> None:
    from functorch_kit import modes

    # Before JAX counts its devices, which it does once.
    modes.provide_devices(config.variants or ())
    from functorch_kit import report
    from functorch_kit.config import build

    work = _work(config) if config.contenders else ""
    experiment = build(config)
    batch = experiment.data.train(0)
    parts = experiment.model, experiment.objective, experiment.optimizer
    comparison = modes.compare_steps(
        *parts,
        batch,
        hparams=experiment.hparams,
        options=experiment.options,
        variants=config.variants,
        seed=config.seed,
        progress=(lambda line: None) if config.quiet else _say,
        **{name: getattr(config, name) for name in ("steps", "rounds", "seconds")},
    )
    found = comparison.to_dict() | {"contenders": _contenders(config, work)}
    if not config.quiet:
        report.show_comparison(found)
    folder = job.folder or new_run_dir(config, config.run_dir or "runs", "compare-")
    chosen: dict[str, Any] = {"hparams": experiment.hparams, "options": experiment.options}
    report.write_views(folder, **modes.views(*parts, batch, **chosen))
    print(f"comparison: {report.write_comparison(folder, found)}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _work(config: Comparison) -> str:
    """The name under which the net has been written in the other frameworks."""
    from functorch_kit.config import CNN, MLP, Adam, Digits

    nets = {"digits_mlp": MLP(), "digits_cnn": CNN()}
    same = config.data == Digits() and config.optimizer == Adam() and config.train.batch_size == 64
    work = next((name for name, net in nets.items() if config.model == net), None)
    if work is None or not same:
        raise ConfigError(
            "contenders have been written for model=cnn and model=mlp on data=digits at their"
            " default sizes, with optimizer=adam and train.batch_size=64 alone: leave the others be"
        )
    return work


def _contenders(config: Comparison, work: str) -> list[dict[str, Any]]:
    if not work:
        return []
    sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
    import contenders  # pyright: ignore[reportMissingImports]

    return contenders.compete(
        work, config.contenders, peer_python=config.peer_python, pairs=config.pairs
    )


if __name__ == "__main__":
    frame.run(compare, Comparison, unused=OF_WHOLE_RUNS)
