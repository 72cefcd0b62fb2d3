"""Closed-form solvers with their own derivative rules."""

from dd_jax.solvers.barycentre import Barycentre, barycentre
from dd_jax.solvers.implicit import attach_gradient, implicit
from dd_jax.solvers.k_means import Clusters, k_means, nearest_rows
from dd_jax.solvers.kernel_ridge import KernelFit, fit_kernel
from dd_jax.solvers.label_solve import SolvedLabels, label_solve
from dd_jax.solvers.linear_oracle import exact_linear_set
from dd_jax.solvers.precision import in_float64
from dd_jax.solvers.quadratic import (
    QuadraticSolve,
    adam_quadratic,
    conjugate_gradients,
    falls,
    probe_rate,
)
from dd_jax.solvers.ridge import FORMS, RidgeFit, fit_features
from dd_jax.solvers.self_distillation import (
    BestShares,
    SelfDistilled,
    best_shares,
    self_distilled,
)
from dd_jax.solvers.sinkhorn import Potentials, Transport, sinkhorn
from dd_jax.solvers.system import MODES, RidgeInfo, check_ridge

__all__ = [
    "FORMS",
    "MODES",
    "Barycentre",
    "BestShares",
    "Clusters",
    "KernelFit",
    "Potentials",
    "QuadraticSolve",
    "RidgeFit",
    "RidgeInfo",
    "SelfDistilled",
    "SolvedLabels",
    "Transport",
    "adam_quadratic",
    "attach_gradient",
    "barycentre",
    "best_shares",
    "check_ridge",
    "conjugate_gradients",
    "exact_linear_set",
    "falls",
    "fit_features",
    "fit_kernel",
    "implicit",
    "in_float64",
    "k_means",
    "label_solve",
    "nearest_rows",
    "probe_rate",
    "self_distilled",
    "sinkhorn",
]
