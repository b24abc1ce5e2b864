"""Objectives: what a batch says of the parameters, as weighted sums; one file for each task."""

from functorch_kit.train.objectives.classification import classification
from functorch_kit.train.objectives.language import language_model
from functorch_kit.train.objectives.multilabel import multilabel
from functorch_kit.train.objectives.regression import regression
from functorch_kit.train.objectives.weights import example_weight

__all__ = [
    "classification",
    "example_weight",
    "language_model",
    "multilabel",
    "regression",
]
