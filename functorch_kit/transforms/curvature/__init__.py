"""Second-order matrices of a loss as linear operators over data, and what can be asked of them."""

from functorch_kit.transforms.curvature.estimates import Estimate, diagonal, trace
from functorch_kit.transforms.curvature.laplace import Laplace, Prediction, laplace
from functorch_kit.transforms.curvature.matrices import fisher, gauss_newton, hessian
from functorch_kit.transforms.curvature.operator import Operator
from functorch_kit.transforms.curvature.solving import Solution, solve
from functorch_kit.transforms.curvature.spectrum import Eigenpairs, eigenpairs

__all__ = [
    "Eigenpairs",
    "Estimate",
    "Laplace",
    "Operator",
    "Prediction",
    "Solution",
    "diagonal",
    "eigenpairs",
    "fisher",
    "gauss_newton",
    "hessian",
    "laplace",
    "solve",
    "trace",
]
