"""One training step in several modes: how it is executed, and what it is made to do besides."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from functorch_kit import program, train
from functorch_kit.program.switches import SWITCHES, contradiction, read_switches, read_words
from functorch_kit.types import Batch, HParams, Objective, Outcome, Params, path_name, spec_of

PRECISIONS = {"bf16": "bfloat16", "fp16": "float16"}
STEP_SWITCHES: dict[str, str] = {
    "accumulate": "micro-batches",
    "remat": "",
    **dict.fromkeys(PRECISIONS, ""),
}
"""Words that change the step itself, beside those of ``program.SWITCHES``, which execute it."""

VARIANTS = (
    "eager", "disable_jit", "jit", "aot", "scan", "donate", "vmap", "remat", "accumulate=2",
    "bf16", "aot+warm",
)  # fmt: skip
"""What is compared where nothing else is asked for."""

# What only some modes have: fp16 scales the loss, and counts what it refused.
_OWN = ("state/loss_scale", "output/1/refused", "output/1/failed")


def compare_steps(
    model: Any,
    objective: Any,
    optimizer: Any,
    batch: Batch,
    *,
    hparams: Mapping[str, Any] | None = None,
    variants: Sequence[str | program.Case] | None = None,
    options: train.Options | None = None,
    seed: int = 0,
    **settings: Any,
) -> program.Comparison:
    """Run one training step in several modes, time each, and compare the states they reach.

    Beside the words of ``program.compare`` a variant may say ``accumulate=<micro-batches>``,
    ``remat`` (every block, or every top-level part of a model without blocks), ``bf16`` and
    ``fp16`` (with loss scaling). All combine: ``scan=10+bf16+accumulate=2+sharded=2``.

    The first row is the reference of the others, but for ``accumulate``: where a model draws
    dropout masks or has batch statistics, a batch in micro-batches is not the batch as a whole. So
    it is compared with its definition, the micro-batches written out one after the other under
    one gradient, in float32.

    Args:
        model: a Model, or a function of the hyperparameters that returns one.
        objective: likewise, see ``train.classification``.
        optimizer: an optax GradientTransformation, or a function of the hyperparameters.
        batch: one batch, which all steps take.
        hparams: the hyperparameters, by name.
        variants: modes, in this order; None for ``VARIANTS``, where a ``scan`` of a step that has
            operations which the backend runs slowly inside a loop is ``scan=2+unroll``.
        options: of the step in all modes; the words of a variant replace theirs.
        seed: of parameters and randomness.
        **settings: ``steps``, ``rounds``, ``seconds`` and the other arguments of
            ``program.compare``.

    Returns:
        A row for each variant; ``print`` it for a table.

    Raises:
        ComparisonError: an unknown word, words that contradict each other, too few devices.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> import functorch_kit as fk
        >>> model = fk.nn.dense(1)
        >>> batch = {"x": jnp.ones((4, 2)), "y": jnp.ones((4, 1))}
        >>> found = fk.compare_steps(model, fk.train.regression(model), optax.sgd(0.1), batch,
        ...                          variants=("jit", "accumulate=2"), rounds=1, matmul_size=64)
        >>> [(row.name, row.agrees) for row in found.variants]
        [('jit', True), ('accumulate=2', True)]
    """
    for each in variants or ():
        if isinstance(each, str):  # before anything is made
            _read(each)
    base = options or train.Options()
    values = train.as_hparams(hparams, base.policy.params)
    made: dict[Any, tuple[Callable[..., Any], train.TrainState]] = {}
    states: dict[Any, train.TrainState] = {}

    def state_of(chosen: train.Options) -> train.TrainState:
        """The first state: the same for options that make no other."""
        key = chosen.policy.params, chosen.policy.loss_scale
        if key not in states:
            states[key] = train.init_state(
                model, optimizer, spec_of(batch["x"]), hparams=values, seed=seed, options=chosen
            )
        return states[key]

    def step_of(chosen: train.Options, objective: Any) -> tuple[Callable[..., Any], Any]:
        """The step and its first state; the same objects for the same options."""
        key = chosen, id(objective)
        if key not in made:
            step, state = train.make_train_step(objective, optimizer, chosen), state_of(chosen)
            if chosen.policy.loss_scale is not None:
                state = settled(step, values, state, batch)
            made[key] = step, state
        return made[key]

    step, state = step_of(base, objective)
    definitions: dict[int, program.Case] = {}

    def definition(parts: int) -> program.Case:
        if parts not in definitions:
            written, first = step_of(
                dataclasses.replace(base, accumulate=1), written_out(objective, parts)
            )
            name = f"{parts} micro-batches written out"
            definitions[parts] = program.Case(name, fn=written, args=(values, first, batch))
        return definitions[parts]

    def case(variant: str) -> program.Case:
        own, how = _read(variant)
        if not own:
            return program.Case(variant, how=how)
        precision = next((word for word in PRECISIONS if word in own), None)
        parts = own.get("accumulate") or base.accumulate
        chosen = dataclasses.replace(
            base,
            accumulate=parts,
            remat=blocks(state.params) if "remat" in own else base.remat,
            precision=precision or base.precision,
        )
        fn, first = step_of(chosen, objective)
        return program.Case(
            variant,
            how=how,
            fn=fn,
            args=(values, first, batch),
            dtype=None if precision is None else PRECISIONS[precision],
            reference=definition(parts) if own.get("accumulate", 1) != 1 else None,
            ignore=_OWN,
        )

    if variants is None:
        is_slow = train.slow_in_a_loop(step, values, state, batch)
        variants = ["scan=2+unroll" if is_slow and v == "scan" else v for v in VARIANTS]
    cases = [each if isinstance(each, program.Case) else case(each) for each in variants]
    return program.compare(step, values, state, batch, carry=1, batch=2, variants=cases, **settings)


def _read(variant: str) -> tuple[dict[str, int | None], str]:
    """The words that change the step, and the others as a variant of ``program.compare``."""
    words = read_words(variant, SWITCHES | STEP_SWITCHES)
    contradiction(variant, words, tuple(PRECISIONS))
    own = {word: words.pop(word) for word in STEP_SWITCHES if word in words}
    how = "+".join(w if n is None else f"{w}={n}" for w, n in words.items()) or "jit"
    read_switches(how)
    return own, how


def provide_devices(variants: Sequence[str]) -> None:
    """Ask JAX for as many virtual CPU devices as the variants split a batch over.

    To be called before JAX counts its devices, which it does once in a process; where it is too
    late, ``compare_steps`` says what to do. Other platforms keep the devices that they have.

    Args:
        variants: as for ``compare_steps``; unknown words are left for it to refuse.

    Example:
        >>> provide_devices(["jit", "scan=10+donate"])
    """
    wanted = [int(number) for each in variants for number in re.findall(r"sharded=(\d{1,4})", each)]
    if max(wanted, default=1) > max(1, jax.config.values["jax_num_cpu_devices"]):
        with contextlib.suppress(RuntimeError):  # too late
            jax.config.update("jax_num_cpu_devices", max(wanted))


def views(
    model: Any,
    objective: Any,
    optimizer: Any,
    batch: Batch,
    *,
    hparams: Mapping[str, Any] | None = None,
    options: train.Options | None = None,
) -> dict[str, Any]:
    """What ``report.write_views`` shows of a training step: its jaxpr, its HLO, the model's layers.

    Args:
        model: see ``compare_steps``, as for the others.
        objective: likewise.
        optimizer: likewise.
        batch: likewise.
        hparams: likewise.
        options: likewise.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from functorch_kit import nn
        >>> model, batch = nn.dense(1), {"x": jnp.ones((4, 2)), "y": jnp.ones((4, 1))}
        >>> found = views(model, train.regression(model), optax.sgd(0.1), batch)
        >>> found["name"], "dot_general" in found["jaxpr"], found["summary"].params
        ('train_step', True, 3)
    """
    base, x_spec = options or train.Options(), spec_of(batch["x"])
    values = train.as_hparams(hparams, base.policy.params)
    init = train.make_init(model, optimizer, x_spec, base)
    state = jax.eval_shape(init, values, jax.random.key(0))
    step = train.make_train_step(objective, optimizer, base)
    compiled = program.compile(step, values, state, batch, name="train_step", donate=(1,), carry=1)
    return {
        "name": compiled.name,
        "jaxpr": str(compiled.jaxpr),
        "hlo": compiled.hlo(),
        "summary": program.summary(train.resolve(model, values), x_spec, train=True),
    }


def written_out(objective: Any, parts: int) -> Callable[[HParams], Objective]:
    """The definition of accumulation: the sums of all micro-batches, in one expression.

    Micro-batch ``i`` draws from ``fold_in(key, i)`` and takes the model_state that the one before
    it left, through which no gradient passes.

    Args:
        objective: an objective, or a function of the hyperparameters that returns one.
        parts: number of micro-batches; must divide the batch.

    Returns:
        A function of the hyperparameters that returns the objective of the whole batch.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn, train
        >>> whole = train.regression(nn.identity)
        >>> halves = written_out(whole, 2)({})
        >>> batch = {"x": jnp.arange(4.0)[:, None], "y": jnp.zeros((4, 1))}
        >>> outcome = halves({}, (), batch, key=jax.random.key(0), train=True)
        >>> float(outcome.loss_sum), float(outcome.weight)
        (14.0, 4.0)
    """

    def of(hparams: HParams) -> Objective:
        one = train.resolve(objective, hparams)

        def total(params, model_state, batch, *, key, train) -> Outcome:
            outcomes: list[Outcome] = []
            for index in range(parts):
                micro = jax.tree.map(lambda leaf, index=index: jnp.split(leaf, parts)[index], batch)
                at = None if key is None else jax.random.fold_in(key, index)
                outcome = one(params, model_state, micro, key=at, train=train)
                model_state = jax.lax.stop_gradient(outcome.model_state)
                outcomes.append(outcome)

            def added(*leaves: Any) -> Any:
                return sum(leaves[1:], start=leaves[0])

            sums = [(each.loss_sum, each.weight, each.metrics) for each in outcomes]
            loss_sum, weight, metrics = jax.tree.map(added, *sums)
            return Outcome(loss_sum, weight, model_state, metrics)

        return total

    return of


def settled(
    step: train.TrainStep, hparams: HParams, state: train.TrainState, batch: Batch
) -> train.TrainState:
    """The state with a loss scale at which its first step is not refused.

    Dynamic scaling begins high, and finds its scale by refusing steps; a step that is refused moves
    nothing, so that a few of them could not be compared with as many that are not.

    Args:
        step: a step with loss scaling.
        hparams: its hyperparameters.
        state: its first state.
        batch: its batch.

    Example:
        >>> import optax
        >>> from functorch_kit import nn
        >>> options, sgd = train.Options(precision="fp16"), optax.sgd(0.1)
        >>> batch = {"x": jnp.ones((1024, 8)), "y": jnp.zeros((1024, 1))}
        >>> state = train.init_state(nn.dense(1), sgd, batch["x"], options=options)
        >>> step = train.make_train_step(train.regression(nn.dense(1)), sgd, options)
        >>> float(settled(step, {}, state, batch).loss_scale.scale) < 2.0**15
        True
    """
    jitted = jax.jit(step)
    for _ in range(32):
        after, metrics = jitted(hparams, state, batch)
        if not float(metrics["refused"].compute()):
            break
        state = state.replace(loss_scale=after.loss_scale)
    return state


def blocks(params: Params) -> tuple[str, ...]:
    """Path patterns of a model's repeated blocks; of its top-level parts if it repeats none.

    Example:
        >>> blocks({"stem": {"kernel": 1}, "blocks": {"0": {"kernel": 1}, "1": {"kernel": 1}}})
        ('blocks/*',)
        >>> blocks({"hidden": {"kernel": 1}, "head": {"kernel": 1}})
        ('*',)
    """
    found: dict[str, None] = {}
    for path, _ in jax.tree_util.tree_leaves_with_path(params):
        names = path_name(path).split("/")
        number = next((index for index, name in enumerate(names) if name.isdigit()), None)
        if number:
            found["/".join([*names[:number], "*"])] = None
    return tuple(found) or ("*",)
