"""Every optimizer and schedule by configuration: what optax takes, as hyperparameters."""

import dataclasses
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from functorch_kit import train
from functorch_kit.config import OPTIMIZERS, Config, from_dict, to_dict, traced
from functorch_kit.config.optimization import make_optimizer
from functorch_kit.config.settings import setting_of

pytestmark = pytest.mark.usefixtures("standard_promotion")  # optax runs in all of these

OURS = {"sam": {"learning_rate", "radius", "momentum", "nesterov", "weight_decay",
                "every_other_step"}, "muon": {"adam", "stacked"}}  # fmt: skip
# Arguments of optax that are no settings: trees, functions, dtypes, other optimizers, and what is
# said in another way (a warm-up by schedule=warmup).
NOT_SETTINGS = {
    "mask", "weight_decay_mask", "trust_ratio_mask", "mu_dtype", "dtype_momentum", "state_dtype",
    "accumulator_dtype", "seed", "clip_value_fn", "base_optimizer", "weight_dimension_numbers",
    "muon_weight_dimension_numbers", "hessian_diagonal_fn", "verbose", "warmup_steps",
    "print_win_rate_every_n_steps", "linesearch", "ns_coeffs", "init_step", "init_estim_sq_dist",
}  # fmt: skip
COMPOSED = {field for base in OPTIMIZERS["adamw"].__mro__[1:] if dataclasses.is_dataclass(base)
            for field in inspect.signature(base).parameters}  # fmt: skip
LEFT_OUT = {"optimistic_adam", "dpsgd"}
SMALL = {"galore": {"rank": 2}, "adafactor": {"min_dim_size_to_factor": 2}}
START = {
    "dense": {"kernel": jnp.linspace(0.5, 2, 12).reshape(4, 3), "bias": jnp.array([1.0, -1.0, 2])},
    "head": {"kernel": jnp.linspace(-1, 1.5, 6).reshape(3, 2)},
}


def of_optax(name: str) -> Any:
    return getattr(optax, name, None) or getattr(contrib, name)


def configured(name: str, **settings: Any) -> Config:
    return from_dict({"optimizer": {"name": name, **SMALL.get(name, {}), **settings}})


def loss(params: Any) -> jax.Array:
    return sum(jnp.sum((leaf - 0.25) ** 2) for leaf in jax.tree.leaves(params)) / 2 + 0.0


def descend(config: Config, hparams: Any, params: Any, steps: int) -> Any:
    optimizer = optax.with_extra_args_support(make_optimizer(config, hparams))

    def step(carry, _):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params)
        update, state = optimizer.update(
            gradient, state, params,
            value=value, grad=gradient, value_fn=loss, grad_fn=jax.grad(loss),
        )  # fmt: skip
        return (optax.apply_updates(params, update), state), value

    return jax.lax.scan(step, (params, optimizer.init(params)), length=steps)


def test_the_table_of_functions_and_the_table_of_settings_have_the_same_names():
    assert sorted(train.OPTIMIZERS) == sorted(OPTIMIZERS)


def test_every_optimizer_of_optax_is_in_the_table():
    def makes_one(function: Any) -> bool:
        return "learning_rate" in inspect.signature(function).parameters

    for module in (optax, contrib):
        functions = {
            name for name, value in vars(module).items()
            if inspect.isfunction(value) and makes_one(value)
            and not name.startswith(("_", "scale"))
        }  # fmt: skip
        assert functions - {"schedule_free", *LEFT_OUT} <= set(OPTIMIZERS)


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"sam"}))
def test_settings_have_the_names_and_defaults_of_optax(name: str):
    theirs = inspect.signature(of_optax(name)).parameters
    fields = {field.name: field for field in dataclasses.fields(OPTIMIZERS[name])}
    own = set(fields) - COMPOSED - OURS.get(name, set())
    used = {"use_clipping"} if name == "adopt" else set()
    assert own == set(theirs) - NOT_SETTINGS - ({"learning_rate"} if name == "lbfgs" else set())
    assert used <= own
    for key in own:
        ours, default = fields[key].default, theirs[key].default
        if key == "learning_rate" and default in (None, inspect.Parameter.empty):
            continue
        if (name, key) == ("noisy_sgd", "key"):
            continue  # None there, which is refused where it is used
        off = setting_of(fields[key]).off
        assert ours == default or (ours == off and default is None), key


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_an_optimizer_of_a_configuration_descends_and_every_number_of_it_is_an_argument(name: str):
    config = configured(name)
    values = to_dict(config)["optimizer"]
    # What is off is on here, and a number is none that optax might branch on.
    for field in dataclasses.fields(config.optimizer):
        setting = setting_of(field)
        if setting.traced and (values[field.name] is None or values[field.name] == setting.off):
            values[field.name] = 0.01 if "momentum" not in field.name else 0.5
    values |= {"layers": ["dense", "head"]} if "layers" in values else {}
    values |= {"learning_rates": ["head=0.9"]} if "layers" in values else {}
    values |= {"layer_decay": 0.9} if "layers" in values else {}
    config = from_dict({"optimizer": values})
    hparams = {key: value for key, value in traced(config).items() if key.startswith("optimizer.")}
    every = {
        f"optimizer.{field.name}" for field in dataclasses.fields(config.optimizer)
        if setting_of(field).traced
    }  # fmt: skip
    assert every <= {key.partition("[")[0] for key in hparams}
    closed = jax.make_jaxpr(lambda h, params: descend(config, h, params, 3))(
        train.as_hparams(hparams), START
    )
    used = {id(v) for equation in closed.jaxpr.eqns for v in equation.invars}
    unused = [
        key for key, v in zip(sorted(hparams), closed.jaxpr.invars, strict=False)
        if id(v) not in used
    ]  # fmt: skip
    assert unused == []

    plain = configured(name)
    descent = jax.jit(lambda h: descend(plain, h, START, 25)[1])
    losses = descent(train.as_hparams(traced(plain)))
    assert np.isfinite(losses).all()
    assert float(losses[-1]) < float(losses[0])
