"""The settings of every optimizer: one row each, the arguments of its function in optax.

``OPTIMIZERS`` holds a dataclass for each row. Names and defaults are optax's own, which a test
compares with its signatures; where optax has no learning rate, it has one here. An argument that is
None in optax has here the number that stands for nothing, such as a momentum of 0. Reading the
table loads neither JAX nor optax.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from functorch_kit.config.settings import setting

_PATTERNS = {"fewest": 0, "entry": "path patterns"}


@dataclasses.dataclass(kw_only=True)
class Optimizer:
    """What every optimizer but lbfgs takes."""

    learning_rates: tuple[str, ...] = setting(
        (), "factors of the learning rate by path, such as stem=0.1", fewest=0, pairs=True
    )
    layer_decay: float | None = setting(
        None, "factor of the learning rate from a layer to the one before",
        above=0, most=1, traced=True,
    )  # fmt: skip
    layers: tuple[str, ...] = setting(
        (), "paths from the input to the output, for layer_decay; * makes a layer each", **_PATTERNS
    )


@dataclasses.dataclass(kw_only=True)
class Decaying(Optimizer):
    """What an optimizer takes whose weight decay can be kept from some parameters."""

    no_decay: tuple[str, ...] = setting(
        (), "what weight decay leaves alone; **/bias and **/scale are usual", **_PATTERNS
    )


Field = tuple[Any, Any]


def _number(default: float, text: str, **bounds: Any) -> Field:
    return float, setting(default, text, traced=True, **bounds)


def _rate(default: float, text: str = "size of a step") -> Field:
    return _number(default, text, above=0, most=1e6)


def _decay_rate(default: float, text: str, **bounds: Any) -> Field:
    return _number(default, text, **{"least": 0, "below": 1, **bounds})


def _eps(default: float, text: str = "added to the denominator") -> Field:
    return _number(default, text, least=0, most=1)


def _or_off(default: float) -> float | None:
    """What is 0 in optax stays a constant there, and costs nothing, as long as it is."""
    return 0.0 if default == 0 else None


def _root(default: float) -> Field:
    text = "added under the root"
    return _number(default, text, least=0, most=1, off=_or_off(default))


def _weight_decay(default: float = 0.0) -> Field:
    text = "decay of the weights"
    return _number(default, text, least=0, most=1e3, off=_or_off(default))


def _positive(default: float, text: str) -> Field:
    return _number(default, text, above=0, most=1e9)


def _any_number(default: float, text: str) -> Field:
    return _number(default, text, most=1e9)


def _flag(default: bool, text: str) -> Field:
    return bool, setting(default, text)


def _count(default: int, text: str, **bounds: Any) -> Field:
    return int, setting(default, text, **{"least": 1, "most": 10**9, **bounds})


def _moments(b1: float = 0.9, b2: float = 0.999) -> dict[str, Field]:
    return {
        "b1": _decay_rate(b1, "decay of the first moment"),
        "b2": _decay_rate(b2, "decay of the second moment"),
    }


_MOMENTUM_OFF = _decay_rate(0.0, "decay of the running sum", off=0.0)
_NESTEROV = _flag(False, "Nesterov's form of momentum")
_NADAM = _flag(True, "Nesterov's form of momentum")
_FIRST_DISTANCE = "first guess of the distance to the solution"

OPTIMIZERS: dict[str, type] = {}
"""Choice -> its settings."""


def _row(name: str, kind: str, text: str, base: type = Optimizer, /, **fields: Field) -> None:
    made = dataclasses.make_dataclass(
        kind, [(key, *field) for key, field in fields.items()], bases=(base,)
    )
    made.__doc__, made.__module__ = f"{text}.", __name__
    OPTIMIZERS[name] = made


# fmt: off
_row("sgd", "SGD", "Stochastic gradient descent",
     learning_rate=_rate(0.01), momentum=_MOMENTUM_OFF, nesterov=_NESTEROV)
_row("adam", "Adam", "Adam (Kingma and Ba, 2015)",
     learning_rate=_rate(1e-3), **_moments(), eps=_eps(1e-8), eps_root=_root(0.0),
     nesterov=_NESTEROV)
_row("adamw", "AdamW", "Adam with decoupled weight decay (Loshchilov and Hutter, 2019)", Decaying,
     learning_rate=_rate(1e-3), **_moments(), eps=_eps(1e-8), eps_root=_root(0.0),
     weight_decay=_weight_decay(1e-4), nesterov=_NESTEROV)
_row("acprop", "ACProp", "AdaBelief, centred and asynchronous (Zhuang et al., 2021)", Decaying,
     learning_rate=_rate(1e-3), **_moments(), eps=_eps(1e-16), eps_root=_root(1e-16),
     weight_decay=_weight_decay())
_row("adabelief", "AdaBelief", "AdaBelief (Zhuang et al., 2020)",
     learning_rate=_rate(1e-3), **_moments(), eps=_eps(1e-16), eps_root=_root(1e-16),
     nesterov=_NESTEROV)
_row("adadelta", "AdaDelta", "Adadelta (Zeiler, 2012)", Decaying,
     learning_rate=_rate(1.0), rho=_decay_rate(0.9, "decay of the averages"), eps=_eps(1e-6),
     weight_decay=_weight_decay())
_row("adafactor", "AdaFactor", "Adafactor, with factored second moments (Shazeer and Stern, 2018)",
     Decaying, learning_rate=_rate(1e-3),
     min_dim_size_to_factor=_count(128, "smallest size of an axis that is factored"),
     decay_rate=_decay_rate(0.8, "power of the second moment's decay", most=10, below=None),
     decay_offset=_count(0, "steps made before, for fine-tuning", least=0, traced=True),
     multiply_by_parameter_scale=_flag(True, "whether a step is relative to the parameter's size"),
     clipping_threshold=_positive(1.0, "largest root mean square of an update"),
     momentum=_MOMENTUM_OFF, weight_decay_rate=_weight_decay(), eps=_eps(1e-30),
     factored=_flag(True, "whether second moments are factored"))
_row("adagrad", "AdaGrad", "Adagrad (Duchi et al., 2011)",
     learning_rate=_rate(0.01),
     initial_accumulator_value=_number(0.1, "first value of the sums", least=0, most=1e9),
     eps=_eps(1e-7))
_row("adamax", "AdaMax", "Adam with the infinity norm (Kingma and Ba, 2015)",
     learning_rate=_rate(2e-3), **_moments(), eps=_eps(1e-8))
_row("adamaxw", "AdaMaxW", "AdaMax with decoupled weight decay", Decaying,
     learning_rate=_rate(2e-3), **_moments(), eps=_eps(1e-8), weight_decay=_weight_decay(1e-4))
_row("adan", "Adan", "Adaptive Nesterov momentum (Xie et al., 2022)", Decaying,
     learning_rate=_rate(1e-3), **_moments(0.98, 0.92),
     b3=_decay_rate(0.99, "decay of the squared differences"),
     eps=_eps(1e-8), eps_root=_root(1e-8), weight_decay=_weight_decay())
_row("ademamix", "AdEMAMix", "Adam with two averages (Pagliardini et al., 2024)", Decaying,
     learning_rate=_rate(1e-3), **_moments(), b3=_decay_rate(0.9999, "decay of the slow average"),
     alpha=_any_number(5.0, "weight of the slow average"), eps=_eps(1e-8),
     eps_root=_root(0.0), weight_decay=_weight_decay())
_row("adopt", "ADOPT", "Adam that converges with any b2 (Taniguchi et al., 2024)",
     learning_rate=_rate(1e-3), **_moments(0.9, 0.9999), eps=_eps(1e-6), nesterov=_NESTEROV,
     use_clipping=_flag(True, "whether updates are clipped"))
_row("amsgrad", "AMSGrad", "Adam whose second moment never shrinks (Reddi et al., 2018)",
     learning_rate=_rate(1e-3), **_moments(), eps=_eps(1e-8), eps_root=_root(0.0),
     bias_correction_mu=_flag(True, "whether the first moment's bias is corrected"),
     bias_correction_nu=_flag(True, "whether the second moment's bias is corrected"))
_row("cocob", "COCOB", "Coin betting, without a learning rate (Orabona and Tommasi, 2017)",
     Decaying, learning_rate=_rate(1.0, "factor of the steps"),
     alpha=_positive(100.0, "how slowly it begins"), eps=_eps(1e-8), weight_decay=_weight_decay())
_row("dadapt_adamw", "DAdaptAdamW", "AdamW that finds its learning rate (Defazio et al., 2023)",
     learning_rate=_rate(1.0, "factor of the steps"),
     betas=(tuple[float, float], setting((0.9, 0.999), "decays of the moments", least=0, below=1,
                                         traced=True)),
     eps=_eps(1e-8), estim_lr0=_positive(1e-6, _FIRST_DISTANCE), weight_decay=_weight_decay())
_row("dog", "DoG", "Distance over gradients (Ivgi et al., 2023)", Decaying,
     learning_rate=_rate(1.0, "factor of the steps"), eps=_eps(1e-8), weight_decay=_weight_decay())
_row("dowg", "DoWG", "Distance over weighted gradients (Khaled et al., 2023)", Decaying,
     learning_rate=_rate(1.0, "factor of the steps"), eps=_eps(1e-4), weight_decay=_weight_decay())
_row("fromage", "Fromage", "Steps relative to a layer's norm (Bernstein et al., 2020)",
     learning_rate=_rate(0.01), min_norm=_eps(1e-6, "smallest norm"))
_row("galore", "GaLore", "Adam on gradients of low rank (Zhao et al., 2024)", Decaying,
     learning_rate=_rate(1e-3), rank=_count(128, "rank", most=65_536),
     update_proj_gap=_count(200, "steps between projections", traced=True),
     scale=_positive(1.0, "factor of the updates"), weight_decay=_weight_decay())
_row("lamb", "LAMB", "AdamW with a rate for each layer (You et al., 2020)", Decaying,
     learning_rate=_rate(1e-3), **_moments(), eps=_eps(1e-6), eps_root=_root(0.0),
     weight_decay=_weight_decay())
_row("lars", "LARS", "SGD with a rate for each layer (You et al., 2017)", Decaying,
     learning_rate=_rate(0.1), weight_decay=_weight_decay(),
     trust_coefficient=_positive(1e-3, "step relative to a layer's norm"), eps=_eps(0.0),
     momentum=_decay_rate(0.9, "decay of the running sum"), nesterov=_NESTEROV)
_row("lbfgs", "LBFGS", "L-BFGS with a line search, for whole batches (Liu and Nocedal, 1989)",
     object,
     memory_size=_count(10, "steps that are remembered", most=1000),
     scale_init_precond=_flag(True, "whether the first direction is scaled"))
_row("lion", "Lion", "The sign of momentum (Chen et al., 2023)", Decaying,
     learning_rate=_rate(1e-4), **_moments(0.9, 0.99), weight_decay=_weight_decay(1e-3))
_row("madgrad", "MADGRAD", "Momentumised, adaptive, dual averaged (Defazio and Jelassi, 2021)",
     learning_rate=_rate(1e-2), momentum=_decay_rate(0.9, "decay of the running sum"),
     weight_decay=_weight_decay(), eps=_eps(1e-6))
_row("momo", "Momo", "Momentum with a step found from the loss (Schaipp et al., 2023)",
     learning_rate=_rate(1.0, "largest step"), beta=_decay_rate(0.9, "decay of the averages"),
     lower_bound=_any_number(0.0, "what the loss is never below"), weight_decay=_weight_decay(),
     adapt_lower_bound=_flag(False, "whether that bound is found on the way"))
_row("momo_adam", "MomoAdam", "Adam with a step found from the loss (Schaipp et al., 2023)",
     learning_rate=_rate(1e-2, "largest step"), **_moments(), eps=_eps(1e-8),
     lower_bound=_any_number(0.0, "what the loss is never below"), weight_decay=_weight_decay(),
     adapt_lower_bound=_flag(False, "whether that bound is found on the way"))
_row("muon", "Muon", "Muon for hidden matrices, AdamW for the rest (Jordan et al., 2024)",
     Decaying, learning_rate=_rate(0.02),
     adam=(tuple[str, ...], setting(("**/embedding", "head"), "matrices for AdamW", **_PATTERNS)),
     stacked=(tuple[str, ...], setting((), "parts with a leading axis of layers", **_PATTERNS)),
     ns_steps=_count(5, "Newton-Schulz iterations", most=100),
     beta=_decay_rate(0.95, "decay of the running sum"), eps=_eps(1e-8),
     weight_decay=_weight_decay(), nesterov=_NADAM,
     adaptive=_flag(False, "whether updates are scaled by their dual norm"),
     preconditioning=(str, setting("frobenius", "what the first iterate is divided by",
                                   choices=("frobenius", "spectral", "aol", "schatten"))),
     adam_b1=_decay_rate(0.9, "AdamW's decay of the first moment"),
     adam_b2=_decay_rate(0.999, "AdamW's decay of the second moment"),
     adam_eps_root=_root(0.0), adam_weight_decay=_weight_decay(),
     adam_learning_rate=(float | None, setting(None, "AdamW's learning rate; null: the same",
                                               above=0, most=1e6, traced=True)),
     consistent_rms=(float | None, setting(None, "root mean square of updates; 0.2 is AdamW's",
                                           above=0, most=1e3, traced=True)))
_row("nadam", "NAdam", "Adam with Nesterov's momentum (Dozat, 2016)",
     learning_rate=_rate(1e-3), **_moments(), eps=_eps(1e-8), eps_root=_root(0.0),
     nesterov=_NADAM)
_row("nadamw", "NAdamW", "NAdam with decoupled weight decay", Decaying,
     learning_rate=_rate(1e-3), **_moments(), eps=_eps(1e-8), eps_root=_root(0.0),
     weight_decay=_weight_decay(1e-4), nesterov=_NADAM)
_row("noisy_sgd", "NoisySGD", "SGD with annealed noise (Neelakantan et al., 2015)",
     learning_rate=_rate(0.01), eta=_number(0.01, "first variance of the noise", least=0, most=1e6),
     gamma=_number(0.55, "power with which it falls", least=0, most=100),
     key=_count(0, "seed of the noise", least=0, most=2**32 - 1))
_row("novograd", "NovoGrad", "Adam with a second moment for each layer (Ginsburg et al., 2019)",
     learning_rate=_rate(1e-3), **_moments(0.9, 0.25), eps=_eps(1e-6), eps_root=_root(0.0),
     weight_decay=_weight_decay())
_row("optimistic_adam_v2", "OptimisticAdamV2", "Optimistic Adam, for games (Daskalakis, 2018)",
     learning_rate=_rate(1e-3), alpha=_any_number(1.0, "weight of the gradient"),
     beta=_any_number(1.0, "weight of its change"), **_moments(), eps=_eps(1e-8),
     eps_root=_root(0.0), nesterov=_NADAM)
_row("optimistic_gradient_descent", "OptimisticGradientDescent", "Optimistic descent, for games",
     learning_rate=_rate(0.01), alpha=_any_number(1.0, "weight of the gradient"),
     beta=_any_number(1.0, "weight of its change"))
_row("polyak_sgd", "PolyakSGD", "SGD with Polyak's step, from the loss (Loizou et al., 2021)",
     max_learning_rate=_rate(1.0, "largest step"), scaling=_positive(1.0, "factor of the steps"),
     f_min=_any_number(0.0, "the smallest loss there is"), eps=_eps(0.0),
     variant=(str, setting("sps", "of the step", choices=("sps", "sps+"))))
_row("prodigy", "Prodigy", "Adam that finds its learning rate (Mishchenko and Defazio, 2023)",
     learning_rate=_rate(1.0, "factor of the steps"),
     betas=(tuple[float, float], setting((0.9, 0.999), "decays of the moments", least=0, below=1,
                                         traced=True)),
     beta3=(float | None, setting(None, "decay of the estimate; null: the root of the second",
                                  least=0, below=1, traced=True)),
     eps=_eps(1e-8), estim_lr0=_positive(1e-6, _FIRST_DISTANCE),
     estim_lr_coef=_positive(1.0, "factor of the estimate"), weight_decay=_weight_decay(),
     safeguard_warmup=_flag(False, "whether a warm-up is kept out of the estimate"))
_row("radam", "RAdam", "Rectified Adam (Liu et al., 2020)",
     learning_rate=_rate(1e-3), **_moments(), eps=_eps(1e-8), eps_root=_root(0.0),
     threshold=_positive(5.0, "of the variance's tractability"), nesterov=_NESTEROV)
_row("rmsprop", "RMSProp", "RMSProp (Hinton, 2012)",
     learning_rate=_rate(1e-3), decay=_decay_rate(0.9, "decay of the squares"), eps=_eps(1e-8),
     initial_scale=_number(0.0, "first value of the squares", least=0, most=1e9),
     eps_in_sqrt=_flag(True, "whether eps is added under the root"),
     centered=_flag(False, "whether the mean is subtracted"), momentum=_MOMENTUM_OFF,
     nesterov=_NESTEROV, bias_correction=_flag(False, "whether the bias is corrected"))
_row("rprop", "Rprop", "Resilient propagation, for whole batches (Riedmiller and Braun, 1993)",
     learning_rate=_rate(1e-3, "first size of a step"),
     eta_minus=_decay_rate(0.5, "factor of a step that was too large"),
     eta_plus=_number(1.2, "factor of one that was not", above=1, most=100),
     min_step_size=_positive(1e-6, "smallest step"), max_step_size=_positive(50.0, "largest step"))
_row("sam", "SAM", "Sharpness-aware minimisation with SGD (Foret et al., 2021)", Decaying,
     learning_rate=_rate(0.01), radius=_positive(0.05, "distance of the worst point"),
     momentum=_MOMENTUM_OFF, nesterov=_NESTEROV, weight_decay=_weight_decay(),
     every_other_step=_flag(False, "whether a step is spent on the worst point"))
_row("schedule_free_adamw", "ScheduleFreeAdamW", "AdamW without a schedule (Defazio et al., 2024)",
     Decaying, learning_rate=_rate(0.0025),
     b1=_number(0.9, "share of the average where gradients are taken", above=0, below=1),
     b2=_decay_rate(0.999, "decay of the second moment"), eps=_eps(1e-8),
     weight_decay=_weight_decay(),
     weight_lr_power=_any_number(2.0, "how much less small steps count in the average"))
_row("schedule_free_sgd", "ScheduleFreeSGD", "SGD without a schedule (Defazio et al., 2024)",
     Decaying, learning_rate=_rate(1.0),
     b1=_number(0.9, "share of the average where gradients are taken", above=0, below=1),
     weight_decay=_weight_decay(),
     weight_lr_power=_any_number(2.0, "how much less small steps count in the average"))
_row("sign_sgd", "SignSGD", "The sign of the gradient (Bernstein et al., 2018)",
     learning_rate=_rate(1e-3))
_row("signum", "Signum", "The sign of momentum (Bernstein et al., 2018)",
     learning_rate=_rate(1e-3), beta=_decay_rate(0.9, "decay of the running sum"))
_row("simplified_ademamix", "SimplifiedAdEMAMix", "AdEMAMix in one average (Morwani et al., 2025)",
     Decaying, learning_rate=_rate(1e-3), **_moments(0.99, 0.95),
     alpha=_any_number(0.0, "weight of the gradient"), eps=_eps(1e-8), eps_root=_root(0.0),
     weight_decay=_weight_decay())
_row("sm3", "SM3", "Adagrad in little memory (Anil et al., 2019)",
     learning_rate=_rate(0.1), momentum=_decay_rate(0.9, "decay of the running sum"))
_row("sophia", "Sophia", "A diagonal of the Hessian, estimated (Liu et al., 2023)", Decaying,
     learning_rate=_rate(1e-3), **_moments(0.965, 0.99), eps=_eps(1e-8),
     weight_decay=_weight_decay(1e-4), gamma=_positive(0.01, "factor of the diagonal"),
     clip_threshold=_positive(1.0, "largest entry of an update"),
     update_interval=_count(10, "steps between estimates", traced=True))
_row("yogi", "Yogi", "Adam with additive second moments (Zaheer et al., 2018)",
     learning_rate=_rate(0.01), **_moments(), eps=_eps(1e-3))
# fmt: on

SGD: type[Any] = OPTIMIZERS["sgd"]
Adam: type[Any] = OPTIMIZERS["adam"]
AdamW: type[Any] = OPTIMIZERS["adamw"]
