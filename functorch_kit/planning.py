"""What a step takes on devices that need not be there: memory, what they exchange, and time."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from functorch_kit import program, train
from functorch_kit.distributed import Collective, Layout, bytes_per_device, collectives
from functorch_kit.errors import UserError
from functorch_kit.types import Spec, path_name

POLICIES = ("", "dots", "dots_without_batch", "nothing")
"""What blocks keep for the way back: all, or what ``train.Options.remat_policy`` says."""


class Rates(NamedTuple):
    """What devices and links give, as measured or as a data sheet says.

    Attributes:
        flops: operations a second of one device, in the precision of the job.
        link: bytes a second that one device sends.
    """

    flops: float = 100e12
    link: float = 50e9


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One train step on a mesh. Bytes are those on one device.

    Attributes:
        batch_size: examples of a step.
        micro_batch: examples of one micro-batch on one device.
        policy: of ``POLICIES``.
        parameters: how many there are.
        params_bytes: of parameters.
        opt_bytes: of the optimizer's state.
        batch_bytes: of the batch.
        activation_bytes: of all that lives during the step alone: activations, gradients, and
            parameters gathered.
        peak_bytes: the most at once, as the compiled program says.
        flops: operations of all devices together.
        exchanged: what a device exchanges with others.
        compute_seconds: time for the operations.
        link_seconds: time for what is exchanged.
    """

    batch_size: int
    micro_batch: int
    policy: str
    parameters: int
    params_bytes: int
    opt_bytes: int
    batch_bytes: int
    activation_bytes: int
    peak_bytes: int
    flops: int
    exchanged: tuple[Collective, ...]
    compute_seconds: float
    link_seconds: float

    @property
    def seconds(self) -> tuple[float, float]:
        """A step's time: with all exchanges hidden behind operations, and with none."""
        hidden = max(self.compute_seconds, self.link_seconds)
        return hidden, self.compute_seconds + self.link_seconds


def predict(
    model: Any,
    objective: Any,
    optimizer: Any,
    batch: Spec,
    layout: Layout,
    *,
    hparams: dict[str, float] | None = None,
    options: train.Options | None = None,
    rates: Rates | None = None,
) -> Prediction:
    """Compile one train step for a mesh, and read from the program what it takes.

    Nothing is computed and nothing is allocated: shapes are compiled. Virtual CPU devices stand in
    for those that are not there; XLA fuses a little more on an accelerator, which may need less
    memory for activations.

    Args:
        model: see ``fit``, as for the next two.
        objective: its objective.
        optimizer: its optimizer.
        batch: shapes of a whole batch.
        layout: the mesh and its rules.
        hparams: as for ``fit``.
        options: as for ``fit``.
        rates: of devices and links.

    Raises:
        UserError: rules or batches that do not fit the mesh.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from functorch_kit import distributed, nn
        >>> layout = Layout(distributed.make_mesh(data=1, devices=jax.devices()[:1]))
        >>> batch = {"x": jnp.zeros((8, 3)), "y": jnp.zeros((8, 2))}
        >>> model = nn.dense(2)
        >>> found = predict(model, train.regression(model), optax.sgd(0.1), batch, layout)
        >>> found.parameters, found.params_bytes, found.exchanged
        (8, 32, ())
    """
    options, rates = options or train.Options(), rates or Rates()
    values = train.as_hparams(hparams, options.policy.params)
    key = jax.random.key(0)
    init = train.make_init(model, optimizer, batch["x"], options)
    state = layout.on_mesh(jax.eval_shape(init, values, key))
    pinned = lambda hparams: layout.objective(train.resolve(objective, hparams))  # noqa: E731
    step = train.make_train_step(pinned, optimizer, options)
    lies = jax.tree.map(lambda leaf: leaf.sharding, state)
    batches = _Batches(batch)
    layout.check_batch(batches, options.accumulate)
    on_mesh = layout.lying(batch, layout.of_batch(batch, batches))
    compiled = program.compile(
        layout.step(step, lies),
        layout.on_each(values),
        state,
        on_mesh,
        name="train_step",
        donate=(1,),
        out_shardings=layout.outputs(state),
    )
    exchanged = tuple(collectives(compiled))
    report, size = compiled.report, batches.size
    policy = options.remat_policy if options.remat and isinstance(options.remat_policy, str) else ""
    return Prediction(
        batch_size=size,
        micro_batch=size // (layout.batch_parts * options.accumulate),
        policy=policy,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        params_bytes=bytes_per_device(state.params),
        opt_bytes=bytes_per_device(state.opt_state),
        batch_bytes=bytes_per_device(on_mesh),
        activation_bytes=report.temp_bytes or 0,
        peak_bytes=report.peak_bytes or 0,
        flops=report.flops,
        exchanged=exchanged,
        compute_seconds=report.flops / (rates.flops * layout.mesh.size),
        link_seconds=sum(each.sent for each in exchanged) / rates.link,
    )


def fitting(
    model: Any,
    objective: Any,
    optimizer: Any,
    batch: Spec,
    layout: Layout,
    memory: float,
    *,
    hparams: dict[str, float] | None = None,
    options: train.Options | None = None,
    rates: Rates | None = None,
    policies: Sequence[str] = POLICIES,
    most: int = 1024,
) -> list[Prediction]:
    """The largest micro-batch that fits into memory, for each way of keeping activations.

    Memory grows with the micro-batch in nearly a straight line. Programs along it are compiled
    until the answer is known to an eighth; what is returned was compiled, and fits.

    Args:
        model: see ``predict``, as for the next four.
        objective: of these.
        optimizer: of these.
        batch: shapes of a batch of any size.
        layout: of these.
        memory: bytes on one device.
        hparams: of these.
        options: of these; its remat is replaced.
        rates: of these.
        policies: of ``POLICIES``.
        most: the largest micro-batch that is looked for.

    Returns:
        What was predicted, by examples a second, the best first; nothing where not even one
        example fits.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from functorch_kit import distributed, nn
        >>> layout = Layout(distributed.make_mesh(data=1, devices=jax.devices()[:1]))
        >>> batch = {"x": jnp.zeros((8, 3)), "y": jnp.zeros((8, 2))}
        >>> model = nn.dense(2)
        >>> found = fitting(model, train.regression(model), optax.sgd(0.1), batch, layout, 1e6,
        ...                 policies=[""], most=64)
        >>> [each.micro_batch for each in found]
        [64]
    """
    options = options or train.Options()
    found: list[Prediction] = []
    parts = layout.batch_parts * options.accumulate
    paths = remat_paths(model, batch["x"], hparams)

    def predicted(micro: int, policy: str) -> Prediction:
        remat: dict[str, Any] = {"remat": paths, "remat_policy": policy} if policy else {}
        chosen = dataclasses.replace(options, **{"remat": (), "remat_policy": "nothing"} | remat)
        sized = _Batches(batch).of(micro * parts)
        return predict(
            model, objective, optimizer, sized, layout, hparams=hparams, options=chosen, rates=rates
        )

    for policy in policies:
        if policy and not paths:
            continue
        if (one := predicted(1, policy)).peak_bytes <= memory:
            found.append(
                _largest(lambda micro, policy=policy: predicted(micro, policy), one, memory, most)
            )
    return sorted(found, key=lambda each: -each.batch_size / each.seconds[1])


def _largest(
    predicted: Callable[[int], Prediction], one: Prediction, memory: float, most: int
) -> Prediction:
    before, fits, fails = None, one, None
    while True:
        low, high = fits.micro_batch, fails.micro_batch if fails else most + 1
        if high - low <= max(1, low // 8):
            return fits
        other = fails or before
        guess = 2 * low
        if other is not None:
            slope = (other.peak_bytes - fits.peak_bytes) / (other.micro_batch - low)
            if slope > 0:
                guess = low + int((memory - fits.peak_bytes) / slope)
        # Memory may jump from one size to the next: what does not fit has been tried as well.
        tried = predicted(min(max(guess, low + low // 8 + 1), high - 1, 8 * low))
        if tried.peak_bytes <= memory:
            before, fits = fits, tried
        else:
            fails = tried


def remat_paths(
    model: Any, x_spec: Spec, hparams: dict[str, float] | None = None
) -> tuple[str, ...]:
    """Patterns of what may be computed again on the way back: numbered blocks, or all parts.

    Example:
        >>> from functorch_kit import models
        >>> tokens = jax.ShapeDtypeStruct((1, 4), "int32")
        >>> remat_paths(models.gpt(models.GPTConfig(layers=2, heads=1, width=4)), tokens)
        ('blocks/*',)
    """
    values = train.as_hparams(hparams)
    params, _ = jax.eval_shape(lambda: train.resolve(model, values).init(jax.random.key(0), x_spec))
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    blocks = [match[1] for name in names if (match := re.match(r"(.*?)/\d+/", name))]
    parts = [name.partition("/")[0] for name in names if "/" in name]
    found = [f"{name}/*" for name in blocks] or parts
    return tuple(dict.fromkeys(found))


class _Batches:
    """Shapes of a batch, asked as a pipeline is."""

    def __init__(self, batch: Spec):
        self.spec = batch

    @property
    def size(self) -> int:
        return jax.tree.leaves(self.spec["x"])[0].shape[0]

    def of(self, size: int) -> Spec:
        """As many examples."""

        def resized(leaf: Any) -> jax.ShapeDtypeStruct:
            if not leaf.shape or leaf.shape[0] != self.size:
                raise UserError("a batch has a leaf without an axis of examples: give it one")
            return jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype)

        return jax.tree.map(resized, self.spec)
