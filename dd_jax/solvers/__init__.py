"""Closed-form solvers with their own derivative rules."""

from dd_jax.solvers.ridge import RidgeFit, RidgeInfo, check_ridge, fit_features

__all__ = ["RidgeFit", "RidgeInfo", "check_ridge", "fit_features"]
