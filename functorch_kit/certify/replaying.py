"""A step of a run that is past, taken again: alone, eagerly, and looked into."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit import program, train
from functorch_kit.checkpoint import Store
from functorch_kit.program import Finding, first_nonfinite
from functorch_kit.run import RunError
from functorch_kit.types import Batch, HParams


@dataclass(frozen=True)
class Replay:
    """One step of a run, taken again.

    Attributes:
        step: which one, from 1 up: the step that the row ``step`` of ``metrics.jsonl`` tells of.
        checkpoint: the checkpoint that the state before it was derived from; None for the start.
        form: in which the steps from there were taken, as in the run itself.
        metrics: what the compiled step gives.
        is_finite: whether its loss and all that it leaves behind are finite, no update refused.
        finding: where the first NaN or Inf came from; None if the eager step has none.
        failed_step: at which step the run failed, if that is what is replayed. It can be a later
            one: a finite loss may have a gradient that is not.
        error: what the run said when it failed.
    """

    step: int
    checkpoint: int | None
    form: str
    metrics: dict[str, float]
    is_finite: bool
    finding: Finding | None
    failed_step: int | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        start = "the start" if self.checkpoint is None else f"checkpoint {self.checkpoint}"
        metrics = ", ".join(f"{name} {value:.6g}" for name, value in self.metrics.items())
        lines = [f"step {self.step}, derived from {start}: {metrics}"]
        if self.failed_step not in (None, self.step):
            lines.insert(0, f"step {self.failed_step} failed, and started from a bad state")
        if self.finding is not None:
            lines.append(f"first non-finite value: {self.finding}")
        elif self.is_finite:
            lines.append("every value of the step is finite")
        else:
            lines.append(
                "run eagerly, every value is finite: the compiled step rounds otherwise, and one of"
                " its values lies at the limit of its dtype"
            )
        return "\n".join(lines)


def replay(
    run_dir: str | Path, *, step: int | None = None, job: Mapping[str, Any] | None = None
) -> Replay:
    """Take one step of a run again, and name the layer where its first NaN or Inf came from.

    The state before the step is derived from the newest checkpoint before it, by the run's own
    compiled program, so it is the run's to the bit. Then the step is run by itself, once
    compiled and once eagerly, see ``program.first_nonfinite``. Nothing of this needs to have been
    kept while the run was going.

    Args:
        run_dir: the run's folder.
        step: which step, from 1 up; the one that failed if None.
        job: the arguments that ``fit`` was given, by name. They are read from ``config.yaml`` if
            None, which ``experiments/train.py`` leaves there.

    Returns:
        A Replay.

    Raises:
        UserError: no such run, nothing that failed in it, or a step that it cannot have taken.

    Example:
        >>> import tempfile, jax.numpy as jnp, numpy as np, optax, functorch_kit as fk
        >>> model = fk.nn.serial(root=fk.nn.lambda_(jnp.sqrt), head=fk.nn.dense(1))
        >>> x = np.zeros((8, 2), np.float32)
        >>> x[5] = -1
        >>> job = {"model": model, "objective": fk.train.regression(model), "steps": 2,
        ...        "optimizer": optax.sgd(0.1), "data": fk.data.arrays(x, x[:, :1], batch_size=4)}
        >>> found = replay(tempfile.mkdtemp(), job=job, step=2).finding
        >>> found.path, found.direction, found.primitive, found.inputs[0].least
        ('root', 'forward', 'sqrt', -1.0)
    """
    folder = Path(run_dir)
    if not folder.is_dir():
        raise RunError(f"run folder {str(run_dir)!r} does not exist: give the folder of a run")
    failure = _read(folder / "failure.json")
    job = _job(folder) if job is None else job
    asked = _checked(step, failure, job, folder)
    failed_here = failure.get("step") == asked
    with _Past(folder, job, asked, failure if failed_here else {}, sound=step is None) as past:
        found = asked
        if step is None and not train.is_sound(past.before(asked)):
            # A finite loss can have a gradient that is not: the loss shows it a step later.
            found = past.first_unsound(asked)
        metrics, is_finite = past.compiled(found)
        finding = replay_step(*past.eager(found), refused=not is_finite)
        return Replay(
            found,
            past.checkpoint,
            past.stepper.form.name,
            metrics,
            is_finite,
            finding,
            asked if failed_here else None,
            failure.get("error") if failed_here else None,
        )


def replay_step(
    train_step: train.TrainStep,
    hparams: HParams,
    state: Any,
    batch: Batch,
    *,
    refused: bool = True,
) -> Finding | None:
    """Take one step eagerly, and name the layer where its first NaN or Inf came from.

    Args:
        train_step: ``train_step(hparams, state, batch) -> (state, metrics)``, pure.
        hparams: the hyperparameters.
        state: the state before the step.
        batch: what the step reads.
        refused: look as well at what the step itself tests with ``jnp.isfinite``: one whose scaled
            gradients overflow leaves a finite state behind.

    Returns:
        A Finding; None if all is finite.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def train_step(hparams, state, batch):
        ...     loss = lambda w: jnp.sum(jnp.log(batch["x"] @ w))
        ...     return state - hparams["learning_rate"] * jax.grad(loss)(state), {}
        >>> batch = {"x": jnp.array([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])}
        >>> found = replay_step(train_step, {"learning_rate": 0.1}, jnp.ones(2), batch)
        >>> found.direction, found.primitive, found.output.first_bad, found.reached
        ('backward', 'div', (2,), 'state')
    """

    def step(hparams, state, batch):
        state, metrics = train_step(hparams, state, batch)
        return {"state": state, "metrics": metrics}

    return first_nonfinite(step, hparams, state, batch, tested=refused)


class _Past:
    """The states that a run has passed through, derived again by its own program.

    Args:
        folder: the run's.
        job: arguments of ``fit``.
        step: the latest step that will be asked for.
        failure: what ``failure.json`` says of that step.
        sound: whether to begin at a checkpoint without NaN.
    """

    def __init__(
        self,
        folder: Path,
        job: Mapping[str, Any],
        step: int,
        failure: Mapping[str, Any],
        *,
        sound: bool,
    ):
        options = job.get("options") or train.Options()
        self.hparams = train.as_hparams(job.get("hparams"), options.policy.params)
        self.train_step = train.make_train_step(job["objective"], job["optimizer"], options)
        self._skips = job.get("nonfinite") == "skip"
        self._key, self._data = jax.random.key(job.get("seed", 0)), job["data"].train
        x_spec = self._data.spec["x"]
        self._init = train.make_init(job["model"], job["optimizer"], x_spec, options)
        self._like = jax.eval_shape(self._init, self.hparams, self._key)
        form = _read(folder / "program.json").get("form") or job.get("form", "auto")
        specs = (self.hparams, self._like, self._data.spec)
        chosen = train.choose_form(self.train_step, *specs, form)
        program.use_cache()
        traced_once = jax.jit(self.train_step, inline=True)
        self.stepper = train.Stepper(traced_once, self._data, *specs[:2], chosen)
        self._store = Store(folder / "checkpoints")
        self.checkpoint: int | None = None
        # Rollbacks leave data out: the steps behind them read later rows.
        self.stepper.offset = failure.get("data_offset", 0)
        self._start: Any = None
        for saved in sorted((s for s in self._store.steps() if s < step), reverse=True):
            self._start, meta = self._store.restore(saved, self._like)
            if train.is_sound(self._start) or not sound:
                self.checkpoint = saved
                self.stepper.offset = {**meta, **failure}.get("data_offset", 0)
                break
        else:
            init = train.compiled_init(self._init, self.hparams, self._key)
            self._start = init(self.hparams, self._key)

    def __enter__(self) -> _Past:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def before(self, step: int) -> train.TrainState:
        """The state from which a step, counted from 1, was taken."""
        # A copy: the program takes over what it is given.
        state, start = jax.tree.map(jnp.copy, self._start), self.checkpoint or 0
        if start < step - 1:
            guard = train.Guard(self.stepper, skips=True) if self._skips else None
            way = train.advance(
                self.stepper,
                self.hparams,
                state,
                start,
                step - 1,
                every=(step,),
                log=lambda start, metrics: None,
                guard=guard,
            )
            *_, (_, state) = way
        return state

    def first_unsound(self, step: int) -> int:
        """The step that first left a bad state, given one that started from such a state."""
        sound, unsound = self.checkpoint or 0, step - 1
        while unsound - sound > 1:
            middle = (sound + unsound) // 2
            if train.is_sound(self.before(middle + 1)):
                sound = middle
            else:
                unsound = middle
        return unsound

    def compiled(self, step: int) -> tuple[dict[str, float], bool]:
        """The metrics of a step, and whether all went well in it."""
        after, fetch = self.stepper(self.hparams, self.before(step), step - 1, 1)
        metrics = {name: float(value[0]) for name, value in fetch().items() if value.ndim == 1}
        failed = metrics.pop("failed", 0.0) or metrics.get("refused", 0.0)
        return metrics, bool(np.isfinite(metrics["loss"])) and not failed and bool(
            train.is_sound(after)
        )

    def eager(self, step: int) -> tuple[train.TrainStep, HParams, Any, Batch]:
        """The pure step, and what it was given."""
        batch = self._data(step - 1 + self.stepper.offset)
        return self.train_step, self.hparams, self.before(step), batch


def _job(folder: Path) -> dict[str, Any]:
    from functorch_kit.config import build, load_run

    return build(load_run(folder)).fit_arguments()


def _checked(
    step: int | None, failure: Mapping[str, Any], job: Mapping[str, Any], folder: Path
) -> int:
    steps = job.get("steps")
    upper = "" if steps is None else f" to {steps}"
    if step is None:
        if "step" not in failure:
            raise RunError(
                f"run folder {str(folder)!r} has no failure.json: no step failed; give step=<1"
                f"{upper or ' up'}> to replay any other"
            )
        return int(failure["step"])
    if step < 1 or (steps is not None and step > steps):
        raise RunError(f"step is {step}: give a step of the run, from 1{upper or ' up'}")
    return step


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        cause = str(error).splitlines()[0]
        raise RunError(f"{str(path)!r} cannot be read: {cause}: remove it") from error
    if not isinstance(found, dict):
        raise RunError(f"{str(path)!r} holds no JSON object: remove it")
    return found
