"""Objectives: what a batch says of the parameters, as weighted sums; one file for each task."""

from functorch_kit.train.objectives.adversarial import adversarial
from functorch_kit.train.objectives.classification import classification
from functorch_kit.train.objectives.contrastive import contrastive
from functorch_kit.train.objectives.language import language_model
from functorch_kit.train.objectives.masked import masked_autoencoder, patch_mask
from functorch_kit.train.objectives.multilabel import multilabel
from functorch_kit.train.objectives.parts import apply_named, example_keys
from functorch_kit.train.objectives.regression import regression
from functorch_kit.train.objectives.variational import variational
from functorch_kit.train.objectives.weighted import weighted
from functorch_kit.train.objectives.weights import example_weight

__all__ = [
    "adversarial",
    "apply_named",
    "classification",
    "contrastive",
    "example_keys",
    "example_weight",
    "language_model",
    "masked_autoencoder",
    "multilabel",
    "patch_mask",
    "regression",
    "variational",
    "weighted",
]
