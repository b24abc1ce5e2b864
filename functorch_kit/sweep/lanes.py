"""Many runs in one program: everything that one run computes, with one more axis."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from functorch_kit import program, train
from functorch_kit.compiled import as_facts
from functorch_kit.data import Data
from functorch_kit.errors import UserError
from functorch_kit.sweep.asked import Arguments
from functorch_kit.sweep.rows import SideBySide
from functorch_kit.types import PyTree, Spec, spec_of

_AXIS = "lanes"


@dataclasses.dataclass(frozen=True)
class LanePrograms:
    """The compiled programs of so many runs side by side.

    Attributes:
        count: number of lanes.
        stepper: takes steps; its hyperparameters are ``values`` and ``alive``, with a lane axis.
            A lane that is not alive stays as it is, to the bit.
        evaluator: of the held-out parts; None where there are none.
        init: ``(values, keys) -> states``.
        evaluation_params: of the states; None where they are the states' own.
        placed: puts a tree with a lane axis where the programs want it.
    """

    count: int
    stepper: train.Stepper
    evaluator: train.LaneEvaluator | None
    init: program.Program
    evaluation_params: program.Program | None
    placed: Callable[[PyTree], PyTree]

    def on(self, rows: SideBySide) -> LanePrograms:
        """The same programs for other lanes' data."""
        return dataclasses.replace(self, stepper=self.stepper.on(rows))

    @property
    def memory(self) -> int:
        """Bytes that a step takes on the busiest device, by the compiled program's own analysis."""
        report = self.stepper.program.report
        return report.argument_bytes + (report.temp_bytes or 0) + _own_outputs(report)

    def to_dict(self) -> dict[str, Any]:
        """What was compiled, as in ``program.json``."""
        return as_facts(self.stepper, self.evaluator) | {"lanes": self.count}


def compile_lanes(
    arguments: Arguments,
    rows: SideBySide,
    data: Data,
    values: PyTree,
    *,
    devices: Sequence[Any] = (),
) -> LanePrograms:
    """Compile the programs of lanes that differ in numbers only.

    Args:
        arguments: of ``fit``, for one of the lanes.
        rows: the training data of all of them.
        data: of one of them: its held-out parts are those of all.
        values: hyperparameters by name, each (lanes,).
        devices: to split the lanes over; their number must divide that of the lanes. The default
            device if there are none.

    Raises:
        UserError: functions that cannot be compiled, or a metric that is not measured.

    Example:
        >>> from functorch_kit import config
        >>> job = config.Config(model=config.MLP(hidden=(8,)), optimizer=config.SGD())
        >>> arguments = config.build(job).fit_arguments()
        >>> data = arguments["data"]
        >>> rows = SideBySide([data.train, data.train.seeded(1)])
        >>> rates = {"optimizer.learning_rate": jnp.array([0.1, 0.2])}
        >>> compile_lanes(arguments, rows, data, rates).count
        2
    """
    options, count = arguments["options"], len(rows.pipelines)
    objective, optimizer = arguments["objective"], arguments["optimizer"]
    placed, specs = _placement(devices)
    init = train.make_init(arguments["model"], optimizer, rows.one.spec["x"], options)
    train_step = train.make_train_step(objective, optimizer, options)
    keys = jax.random.split(jax.random.key(0), count)
    with program.tracing("init", ("hparams", "keys"), (values, keys)):
        like = jax.eval_shape(jax.vmap(init), values, keys)
    step = _over_lanes(train_step, None if rows.is_shared else 0)
    if len(devices) > 1:
        along = PartitionSpec(_AXIS)
        of_batch = PartitionSpec() if rows.is_shared else along
        step = jax.shard_map(
            step, mesh=_mesh(devices), in_specs=(along, along, of_batch), out_specs=along
        )
    traced_once = jax.jit(step, inline=True)
    hparams = {"values": spec_of(values), "alive": jax.ShapeDtypeStruct((count,), bool)}
    form = train.choose_form(traced_once, hparams, like, rows.spec, arguments["form"])
    stepper = train.Stepper(traced_once, rows, specs(hparams), specs(like), form)

    averaged = None
    if options.evaluate != "params":
        average = jax.vmap(lambda state: train.evaluation_params(state, options))
        averaged = program.compile(average, specs(like), name="evaluation_params")
    evaluator = None
    if held_out := data.validation or data.test:
        evaluator = train.LaneEvaluator(
            objective,
            held_out,
            specs(spec_of(values)),
            specs(like.params),
            specs(like.model_state),
            options,
        )
        best = arguments["best"][0]
        if data.validation and best not in evaluator.scalars:
            names = " or ".join(evaluator.scalars)
            raise UserError(f"best: validation measures no {best!r}: give {names}")
    compiled = train.compiled_init(jax.vmap(init), specs(values), specs(spec_of(keys)))
    return LanePrograms(count, stepper, evaluator, compiled, averaged, placed)


@jax.jit
def taken(tree: PyTree, lane: Any) -> PyTree:
    """One lane of a tree, in buffers of its own.

    Example:
        >>> taken({"w": jnp.arange(6).reshape(3, 2)}, 1)["w"].tolist()
        [2, 3]
    """
    return jax.tree.map(lambda leaf: leaf[lane], tree)


def stacked(trees: Sequence[PyTree]) -> PyTree:
    """The lanes' trees as one with a lane axis.

    Example:
        >>> stacked([{"w": jnp.zeros(2)}, {"w": jnp.ones(2)}])["w"].shape
        (2, 2)
    """
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _over_lanes(train_step: train.TrainStep, batch_axis: int | None) -> train.TrainStep:
    def one(hparams, alive, state, batch):
        after, metrics = train_step(hparams, state, batch)
        return jax.tree.map(
            lambda new, old: new if new is old else jnp.where(alive, new, old), after, state
        ), metrics

    def train_lanes(arguments, state, batch):
        over_lanes = jax.vmap(one, in_axes=(0, 0, 0, batch_axis))
        return over_lanes(arguments["values"], arguments["alive"], state, batch)

    return train_lanes


def _mesh(devices: Sequence[Any]) -> Mesh:
    return Mesh(np.array(devices), (_AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def _placement(
    devices: Sequence[Any],
) -> tuple[Callable[[PyTree], PyTree], Callable[[Spec], Spec]]:
    """How trees with a lane axis are put on the devices, and how specs say so."""
    if len(devices) < 2:
        return (lambda tree: tree), (lambda spec: spec)
    along = NamedSharding(_mesh(devices), PartitionSpec(_AXIS))

    def specs(tree: Spec) -> Spec:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=along), tree
        )

    return (lambda tree: jax.device_put(tree, along)), specs


def _own_outputs(report: program.ProgramReport) -> int:
    """Bytes of the results that take no donated buffer's place; at least what the state is not."""
    if not report.output_bytes:
        return 0
    return report.output_bytes if report.not_donated else 0
