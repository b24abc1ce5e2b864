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
from functorch_kit.errors import UserError

# optax runs in all of these.
pytestmark = pytest.mark.usefixtures("standard_promotion", "compiled_quickly")

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


def loss(params: Any, grad_fn: Any = None) -> jax.Array:
    squares = [jnp.sum((leaf - 0.25) ** 2) for leaf in jax.tree.leaves(params)]
    return jnp.stack(squares).sum() / 2


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


def with_everything_on(name: str) -> Config:
    """What is off or null in an optimizer's settings is on: its numbers are arguments then."""
    values = to_dict(configured(name))["optimizer"]
    for field in dataclasses.fields(OPTIMIZERS[name]):
        setting = setting_of(field)
        if setting.traced and values[field.name] in (None, setting.off):
            values[field.name] = 0.5 if "momentum" in field.name else 0.01
    if "layers" in values:
        values |= {"layers": ["dense", "head"], "learning_rates": ["head=0.9"], "layer_decay": 0.9}
    return from_dict({"optimizer": values})


def program(config: Config) -> Any:
    hparams = {key: value for key, value in traced(config).items() if key.startswith("optimizer.")}
    return jax.make_jaxpr(lambda h: descend(config, h, START, 2))(train.as_hparams(hparams))


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_number_of_an_optimizer_is_an_argument_of_the_program(name: str):
    config = with_everything_on(name)
    hparams = [key for key in traced(config) if key.startswith("optimizer.")]
    numbers = {
        f"optimizer.{field.name}" for field in dataclasses.fields(config.optimizer)
        if setting_of(field).traced
    }  # fmt: skip
    assert numbers <= {key.partition("[")[0] for key in hparams}
    jaxpr = program(config).jaxpr
    used = {id(each) for equation in jaxpr.eqns for each in equation.invars}
    arguments = zip(sorted(hparams), jaxpr.invars, strict=True)
    assert [key for key, argument in arguments if id(argument) not in used] == []


STATIC = [
    (name, field.name)
    for name, option in OPTIMIZERS.items()
    for field in dataclasses.fields(option)
    if not setting_of(field).traced and field.name not in {*COMPOSED, "adam", "stacked"}
]
OTHER = {"preconditioning": "spectral", "variant": "sps+", "min_dim_size_to_factor": 64, "rank": 1}


@pytest.mark.parametrize(("name", "key"), STATIC)
def test_every_other_setting_of_an_optimizer_makes_another_program(name: str, key: str):
    config = with_everything_on(name)
    values = to_dict(config)["optimizer"]
    value = values[key]
    if key in OTHER:
        values[key] = OTHER[key]
    else:
        values[key] = not value if isinstance(value, bool) else value + 1
    other = from_dict({"optimizer": values})
    assert str(program(other)) != str(program(config))


def test_muon_has_its_paths_from_the_configuration():
    stack = {"dense": {"kernel": jnp.ones((2, 3, 3))}}
    make_optimizer(configured("muon", stacked=["dense"]), {}).init(stack)
    for refused in (configured("muon", adam=["dense"], stacked=["dense"]), configured("muon")):
        with pytest.raises(UserError, match="no parameter is a hidden matrix"):
            make_optimizer(refused, {}).init(stack)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_of_a_configuration_descends(name: str):
    config = configured(name)
    descent = jax.jit(lambda h: descend(config, h, START, 25)[1])
    losses = descent(train.as_hparams(traced(config)))
    assert np.isfinite(losses).all()
    assert float(losses[-1]) < float(losses[0])
