"""Training as composition of pure functions: objective, state, step, dispatch."""

from functorch_kit.train import schedules
from functorch_kit.train.clipping import clip
from functorch_kit.train.dispatch import advance
from functorch_kit.train.evaluate import Evaluator, LaneEvaluator, predict
from functorch_kit.train.form import Form, choose_form, slow_in_a_loop
from functorch_kit.train.guard import NONFINITE, Guard, NonFinite, is_sound
from functorch_kit.train.objectives import (
    adversarial,
    apply_named,
    classification,
    contrastive,
    example_keys,
    example_weight,
    language_model,
    masked_autoencoder,
    multilabel,
    patch_mask,
    regression,
    variational,
    weighted,
)
from functorch_kit.train.optimizers import OPTIMIZERS, named
from functorch_kit.train.options import Options, OptionsError
from functorch_kit.train.orthogonal import muon
from functorch_kit.train.paths import PathError, by_path, decay_mask, layer_decay, scale_by_path
from functorch_kit.train.schedule_free import (
    schedule_free_adamw,
    schedule_free_params,
    schedule_free_sgd,
)
from functorch_kit.train.sharpness import sam
from functorch_kit.train.state import (
    TrainState,
    as_hparams,
    compiled_init,
    evaluation_params,
    init_state,
    make_init,
    resolve,
)
from functorch_kit.train.step import EvalStep, TrainStep, make_eval_step, make_train_step
from functorch_kit.train.stepper import Stepper, block_steps
from functorch_kit.train.stopping import patience, trend

__all__ = [
    "NONFINITE",
    "OPTIMIZERS",
    "EvalStep",
    "Evaluator",
    "Form",
    "Guard",
    "LaneEvaluator",
    "NonFinite",
    "Options",
    "OptionsError",
    "PathError",
    "Stepper",
    "TrainState",
    "TrainStep",
    "advance",
    "adversarial",
    "apply_named",
    "as_hparams",
    "block_steps",
    "by_path",
    "choose_form",
    "classification",
    "clip",
    "compiled_init",
    "contrastive",
    "decay_mask",
    "evaluation_params",
    "example_keys",
    "example_weight",
    "init_state",
    "is_sound",
    "language_model",
    "layer_decay",
    "make_eval_step",
    "make_init",
    "make_train_step",
    "masked_autoencoder",
    "multilabel",
    "muon",
    "named",
    "patch_mask",
    "patience",
    "predict",
    "regression",
    "resolve",
    "sam",
    "scale_by_path",
    "schedule_free_adamw",
    "schedule_free_params",
    "schedule_free_sgd",
    "schedules",
    "slow_in_a_loop",
    "trend",
    "variational",
    "weighted",
]
