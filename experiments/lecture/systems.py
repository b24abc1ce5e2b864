"""The lecture's systems, each with its one idea and the command that shows it here.

``python experiments/lecture/systems.py --write docs/lecture.md`` runs every command, as a user
would start it, and writes the page with what they printed on this machine. ``--quick`` takes the
short form of each; ``--only`` some systems.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class System(NamedTuple):
    """A row of the table.

    Attributes:
        name: of the system, or of several.
        idea: the one that the lecture takes from it.
        command: what follows ``python``.
        quick: what follows it in the short form.
        told: what of the output, and of the files left in a folder, stands in the table.
    """

    name: str
    idea: str
    command: str
    quick: str
    told: Callable[[str, Path], str]


def lines(*starts: str) -> Callable[[str, Path], str]:
    """The last lines of the output that begin so, joined."""

    def told(output: str, folder: Path) -> str:
        printed = [" ".join(line.split()) for line in reversed(output.splitlines())]
        found = [next((line for line in printed if line.startswith(each)), None) for each in starts]
        if None in found:
            missing = starts[found.index(None)]
            raise LookupError(f"no line of the output begins with {missing!r}")
        return "; ".join(map(str, found))

    return told


def compared(*variants: str) -> Callable[[str, Path], str]:
    """Rows of the comparison that was left behind."""

    def told(output: str, folder: Path) -> str:
        (file,) = folder.rglob("compare.json")
        rows = {each["name"]: each for each in json.loads(file.read_text())["variants"]}
        parts: list[str] = []
        for name in variants:
            row = rows[name]
            moved = row["max_relative_difference"]
            parts.append(
                f"{name} {1e3 * row['median_seconds']:.3g} ms a step"
                + (
                    ""
                    if moved is None or name == variants[0]
                    else f", numbers moved by {moved:.1g}"
                )
            )
        return "; ".join(parts)

    return told


def left(*names: str) -> Callable[[str, Path], str]:
    """The last line of the output, and files that were left behind."""

    def told(output: str, folder: Path) -> str:
        there = {path.name for path in folder.rglob("*")}
        if missing := set(names) - there:
            raise LookupError(f"{sorted(missing)[0]} was not left behind")
        return f"{output.splitlines()[-1].split(' · ')[0]}; left: {', '.join(names)}"

    return told


def naive_against_library(output: str, folder: Path) -> str:
    """Of the headline table: the first net's total, the naive one's, and their ratio."""
    table = [line.split() for line in output.splitlines()]
    head = next(line for line in table if line[:2] == ["net", "forward"])
    row = table[table.index(head) + 1]
    return f"{row[0]}: library {row[3]} ms a pass, naive {row[5]} ms, {row[8]} times as long"


def _script(name: str, idea: str, script: str, *starts: str, words: str = "") -> System:
    file = f"experiments/lecture/{script}.py"
    return System(name, idea, f"{file} {words}".strip(), f"{file} --quick", lines(*starts))


def _compare(name: str, idea: str, *variants: str) -> System:
    command = f"experiments/compare.py experiment=two_layer variants=[{','.join(variants)}]"
    return System(
        name, idea, command, f"{command} rounds=1 seconds=0.1 steps=1", compared(*variants)
    )


_TRAIN = "experiments/train.py experiment=two_layer run_dir=two-layer"
_CNN = "experiments/benchmarks/cnn.py"

SYSTEMS = (
    _script(
        "NumPy",
        "an easy forward pass; gradients by hand, on a CPU alone",
        "02_two_layers",
        "largest difference of the gradients",
        "yes: jax.grad is the gradient by hand",
    ),
    _script(
        "CPU, GPU",
        "few fast cores against many slow ones",
        "cpu_and_gpu",
        "matrix product",
        "not here, not drawn",
    ),
    System(
        "CUDA, cuBLAS, cuDNN",
        "use optimised primitives: cuDNN was about 3 times as fast as naive CUDA",
        f"{_CNN} --net resnet18 --only naive",
        f"{_CNN} --quick",
        naive_against_library,
    ),
    _script(
        "OpenCL, HIP",
        "portable code",
        "any_backend",
        "lowered for",
        "yes: read back, it takes the same step",
    ),
    _compare("TPU, TITAN V", "hardware for matrices, in half precision", "jit", "bf16"),
    _script(
        "TensorFlow's graph, Theano",
        "define once, run many times",
        "define_once",
        "traced",
        "libraries that the program calls",
    ),
    _script(
        "feed_dict",
        "weights copied between host and device in every step: slow",
        "03_weights_through_host",
        "through the host, ms a step",
        "on the device, ms a step",
    ),
    _script(
        "variables, assign, tf.group",
        "what is not asked for does not run",
        "04_only_the_loss",
        "operations of the whole step",
        "operations where only the loss is fetched",
        "yes: the weights are what they were, to the bit",
    ),
    _script(
        "tf.gradients, backward()",
        "gradients in one line",
        "01_gradients",
        "yes: the gradient of x is y",
    ),
    _script(
        "tf.device, .cuda()",
        "the device in one line: JAX_PLATFORMS, or device_put",
        "cpu_and_gpu",
        "yes: each backend computes the same",
    ),
    _script(
        "tf.train, losses",
        "minimize(loss)",
        "06_optimizer",
        "largest difference to the update by hand",
        "yes: optax.sgd is the update by hand",
    ),
    _script(
        "Keras, tf.layers, Sonnet …",
        "layers; compile and fit",
        "08_compile_and_fit",
        "largest difference to the loop of example 7",
        "yes: its 50 losses are those of the explicit loop",
    ),
    _script(
        "… which do not interoperate",
        "a model of one library is nothing to another",
        "adapters",
        "yes: Linen",
        "yes: NNX",
        "yes: Equinox",
        "yes: Haiku",
    ),
    System(
        "TensorBoard, Visdom",
        "curves and the graph",
        _TRAIN,
        f"{_TRAIN} train.steps=4 train.eval_every=2",
        left("tensorboard", "report.html"),
    ),
    _compare("distributed TensorFlow", "one graph over many devices", "jit", "sharded=2"),
    _script(
        "PyTorch's Tensor, Variable, Module",
        "arrays on a device; nodes with gradients; layers that compose",
        "14_custom_module",
        "loss of step 500",
        "yes: it stands inside other models",
    ),
    _script(
        "custom autograd functions",
        "a forward and a backward of one's own",
        "11_custom_function",
        "largest difference of the weights",
    ),
    _script(
        "torch.optim",
        "Adam, step()",
        "13_adam",
        "loss at first",
        "loss of step 500",
    ),
    _script(
        "DataLoader",
        "minibatches, shuffled",
        "15_loader",
        "10 epochs, sum, rate 1e-4",
        "yes: an epoch holds every record once",
    ),
    _script(
        "pretrained models",
        "pretrained=True",
        "16_pretrained",
        "parameters",
        "seconds to read and check them",
        "yes: read back, the logits are equal to the bit",
        words="--net alexnet",
    ),
    System(
        "Caffe",
        "train from files of settings, no code",
        _TRAIN,
        f"{_TRAIN} train.steps=4 train.eval_every=2",
        left("config.yaml", "summary.json"),
    ),
    _script(
        "Caffe2, ONNX",
        "a static graph trained in Python, deployed without it",
        "deployed",
        "lowered for",
        "bytes",
        "yes: the artifact gives what the model gives",
    ),
    _script(
        "static and dynamic graphs",
        "static: optimise and serialise; dynamic: conditionals, loops, nets that differ",
        "static_and_dynamic",
        "depths: op by op",
        "depths: jit, a program for each depth",
        "depths: jit with a bounded loop",
    ),
    _script(
        "TensorFlow Fold",
        "same operations at the same depth of different trees run together",
        "static_and_dynamic",
        "trees: op by op, tree by tree",
        "trees: jit, batched by depth",
    ),
    _compare("eager mode, GradientTape; MXNet", "the line blurs", "eager", "jit"),
    _script(
        "RAM, SSD, prefetching threads",
        "reading can be the bottleneck",
        "data_bottleneck",
        "resident on the device",
        "far away, serial",
        "far away, prefetched",
    ),
)

HEAD = """\
# The lecture's systems, and what each became here

Stanford's CS231n, lecture 8, introduces deep-learning software by the idea that each system
brought. Here every idea is something that runs: the command of a row shows it, and the last column
is what it printed. Made by `python experiments/lecture/systems.py --write docs/lecture.md`.

The lecture's nineteen code examples are `experiments/lecture/01_…` to `19_…`, with its sizes; each
prints what the lecture shows and says whether it was found true. Its headline table is
`python experiments/benchmarks/cnn.py`.
"""


def printed_by(words: str, folder: Path) -> str:
    """What a command printed in a folder, which it is run in once.

    Raises:
        LookupError: it failed.
    """
    kept = folder / "printed.txt"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        script, *rest = shlex.split(words)
        ended = subprocess.run(
            [sys.executable, str(ROOT / script), *rest],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            last = [*ended.stdout.splitlines(), *ended.stderr.splitlines()][-1:]
            raise LookupError(f"{words}: exit code {ended.returncode}: {''.join(last)}")
        kept.write_text(ended.stdout, encoding="utf-8")
    return kept.read_text(encoding="utf-8")


def table(answers: Mapping[str, str]) -> str:
    """The rows as Markdown."""
    rows = ["| system | its one idea | command | what it printed |", "|---|---|---|---|"]
    for system in SYSTEMS:
        told = answers.get(system.name, "not run yet")
        cells = (system.name, system.idea, f"`python {system.command}`", told)
        rows.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(rows)


def answers_on(page: Path) -> dict[str, str]:
    """System -> what stands on a page that was written before."""
    if not page.is_file():
        return {}
    rows = [
        line.strip("| ").split(" | ")
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ]
    commands = {system.name: f"`python {system.command}`" for system in SYSTEMS}
    return {row[0]: row[3] for row in rows if len(row) == 4 and commands.get(row[0]) == row[2]}


def machine() -> str:
    """What the figures were measured on."""
    import jax

    device = jax.devices()[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f"load average {os.getloadavg()[0]:.1f}, " if hasattr(os, "getloadavg") else ""
    return (
        f"{device.platform} ({device.device_kind}), {cores} cores, {load}{platform.system()},"
        f" Python {platform.python_version()}, jax {jax.__version__}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the short form of every command")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="these systems alone; other rows stay"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page here")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.only or ()) - {system.name for system in SYSTEMS}):
        parser.error(f"--only: no system is called {unknown[0]!r}")
    answers, failed = answers_on(options.write) if options.write else {}, False
    with tempfile.TemporaryDirectory(prefix="lecture-") as folder:
        for system in SYSTEMS:
            if options.only and system.name not in options.only:
                continue
            words = system.quick if options.quick else system.command
            print(f"{system.name}: python {words}", file=sys.stderr, flush=True)
            place = Path(folder) / hashlib.sha256(words.encode()).hexdigest()[:12]
            try:
                told = system.told(printed_by(words, place), place)
            except LookupError as error:
                print(f"error: {system.name}: {error}", file=sys.stderr)
                failed = True
                continue
            form = "short form: " if options.quick else ""
            answers[system.name] = f"{form}{told} ({datetime.datetime.now(datetime.UTC):%Y-%m-%d})"
    page = f"{HEAD}\nMeasured on: {machine()}.\n\n{table(answers)}\n"
    print(page)
    if options.write:
        options.write.write_text(page, encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
