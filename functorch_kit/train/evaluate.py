"""Evaluation: every record exactly once, whatever the batch size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit import program
from functorch_kit.data import each_on_device
from functorch_kit.train.options import Options
from functorch_kit.train.step import EvalStep, make_eval_step
from functorch_kit.types import HParams, Model, ModelState, Params, Spec, spec_of

_KEPT_BYTES = 1 << 30


class _Sums:
    """Metrics of a data set, added up but not computed yet."""

    def __init__(
        self,
        objective: Any,
        pipeline: Any,
        hparams: HParams,
        params: Spec,
        model_state: Spec,
        options: Options | None = None,
        layout: Any = None,
    ):
        specs = [spec_of(hparams), spec_of(params), spec_of(model_state), pipeline.spec]
        step, out = self._over(make_eval_step(objective, options)), None
        self._layout, self._lies = layout, None
        if layout is not None:
            self._lies, out = layout.of_batch(pipeline.spec, pipeline), layout.everywhere
            specs[0], specs[2] = layout.on_each(specs[0]), layout.on_each(specs[2])
            specs[3] = layout.lying(pipeline.spec, self._lies)
        self.program = program.compile(step, *specs, name="eval_step", out_shardings=out)
        self._batches: dict[int, tuple[Any, list[Any]]] = {}

    def _over(self, step: EvalStep) -> EvalStep:
        return step

    def _sums(
        self, pipeline: Any, hparams: HParams, params: Params, model_state: ModelState
    ) -> dict[str, Any]:
        """The metrics, not computed yet, with leaves that are sums over the pipeline."""
        results = [
            self.program(hparams, params, model_state, batch) for batch in self._on_device(pipeline)
        ]
        return jax.tree.map(
            lambda *leaves: np.sum([np.asarray(leaf, np.float64) for leaf in leaves], axis=0),
            *results,
        )

    def _on_device(self, pipeline: Any) -> Iterable[Any]:
        # The pipeline is kept beside its batches, so that its id is not given to another.
        if id(pipeline) in self._batches:
            return self._batches[id(pipeline)][1]
        batches = each_on_device(pipeline)
        if self._layout is not None:
            batches = (self._layout.put(batch, self._lies) for batch in batches)
        leaves = jax.tree.leaves(pipeline.spec)
        if pipeline.steps * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) > _KEPT_BYTES:
            return batches
        self._batches[id(pipeline)] = (pipeline, list(batches))
        return self._batches[id(pipeline)][1]


class Evaluator(_Sums):
    """Evaluates parameters on data sets of one batch shape, with one compiled program.

    Batches of a data set of up to 1 GB cross to the device when it is first seen and stay there;
    larger ones cross each time. Sums are added on the host in float64.

    Args:
        objective: see ``make_eval_step``.
        pipeline: one of the finite pipelines that will be evaluated; gives the batch's shape.
        hparams: hyperparameters, arrays or specs.
        params: parameters, arrays or specs.
        model_state: the model's state, arrays or specs.
        options: of the train step; of these, the precision.
        layout: on several devices, where everything lies, see ``distributed.Layout``; the
            parameters' specs then have shardings.

    Example:
        >>> import numpy as np
        >>> from functorch_kit import data, nn, train
        >>> x, y = np.array([[0, 1], [0, 1], [0, 1]]), np.array([1, 1, 0])
        >>> three = data.evaluation({"x": x.astype(np.float32), "y": y.astype(np.int32)}, 2)
        >>> evaluator = train.Evaluator(train.classification(nn.identity), three, {}, {}, ())
        >>> round(evaluator(three, {}, {}, ())["accuracy"], 4)
        0.6667
    """

    def __call__(
        self, pipeline: Any, hparams: HParams, params: Params, model_state: ModelState
    ) -> dict[str, Any]:
        """Metrics over the whole pipeline: floats, and arrays for metrics that are not scalars."""
        return _computed(self._sums(pipeline, hparams, params, model_state))

    @property
    def scalars(self) -> list[str]:
        """Names of the metrics that are one number each."""
        empty = jax.tree.map(lambda leaf: np.zeros(leaf.shape), self.program.out_spec)
        with np.errstate(all="ignore"):
            return [name for name, metric in empty.items() if np.ndim(metric.compute()) == 0]


class LaneEvaluator(_Sums):
    """As an ``Evaluator``, for many parameters side by side.

    Hyperparameters, parameters and model states have one more axis, the first: that of the lanes.
    The batches are the same for all.

    Example:
        >>> import numpy as np
        >>> from functorch_kit import data, nn, train
        >>> x, y = np.array([[0.0], [1.0]], np.float32), np.array([[0.0], [2.0]], np.float32)
        >>> two, slopes = data.evaluation({"x": x, "y": y}, 2), {"kernel": np.ones((3, 1, 1))}
        >>> slopes["kernel"] *= np.array([0, 1, 2])[:, None, None]
        >>> slopes = jax.tree.map(lambda leaf: leaf.astype(np.float32), slopes)
        >>> line = train.regression(nn.dense(1, use_bias=False))
        >>> [lane["loss"] for lane in LaneEvaluator(line, two, {}, slopes, ())(two, {}, slopes, ())]
        [2.0, 0.5, 0.0]
    """

    def __call__(
        self, pipeline: Any, hparams: HParams, params: Params, model_state: ModelState
    ) -> list[dict[str, Any]]:
        """The metrics of each lane."""
        sums = self._sums(pipeline, hparams, params, model_state)
        count = len(jax.tree.leaves(sums)[0])
        return [
            _computed(jax.tree.map(lambda leaf, lane=lane: leaf[lane], sums))
            for lane in range(count)
        ]

    @property
    def scalars(self) -> list[str]:
        """Names of the metrics that are one number for each lane."""
        empty = jax.tree.map(lambda leaf: np.zeros(leaf.shape[1:]), self.program.out_spec)
        with np.errstate(all="ignore"):
            return [name for name, metric in empty.items() if np.ndim(metric.compute()) == 0]

    def _over(self, step: EvalStep) -> EvalStep:
        return jax.vmap(step, in_axes=(0, 0, 0, None))


def predict(model: Model, params: Params, model_state: ModelState, pipeline: Any) -> np.ndarray:
    """The model's outputs for every record of a finite pipeline, in order.

    Returns:
        Outputs (records, ...), on the host.

    Example:
        >>> import numpy as np
        >>> from functorch_kit import data, nn, train
        >>> five = data.evaluation({"x": np.arange(5.0, dtype=np.float32)[:, None]}, 2)
        >>> train.predict(nn.lambda_(lambda x: 2 * x), {}, (), five)[:, 0].tolist()
        [0.0, 2.0, 4.0, 6.0, 8.0]
    """

    def forward(params, model_state, x):
        return model.apply(params, model_state, x, train=False)[0]

    # Parameters that are spread over devices are used where they lie.
    specs = [*jax.tree.map(_where_it_lies, (params, model_state)), pipeline.spec["x"]]
    compiled = program.compile(forward, *specs, name="predict")
    outputs = [compiled(params, model_state, pipeline(step)["x"]) for step in range(pipeline.steps)]
    return np.concatenate([np.asarray(jnp.asarray(y)) for y in outputs])[: pipeline.order.count]


def _where_it_lies(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None)
    several = sharding is not None and len(sharding.device_set) > 1
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding if several else None)


def _computed(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(metric.compute()) for name, metric in metrics.items()}


def _plain(value: Any) -> Any:
    array = np.asarray(value)
    return float(array) if array.ndim == 0 else array
