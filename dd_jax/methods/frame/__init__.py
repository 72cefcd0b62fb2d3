"""How methods are declared, found and turned into plans."""

from dd_jax.methods.frame.fields import (
    Decay,
    GradientDistance,
    LabelHead,
    LearnedRate,
    Must,
    Norm,
    Normalisation,
    Rate,
    Seed,
    Share,
    Start,
    Views,
    Whole,
    above_zero,
    at_least,
    one_of,
)
from dd_jax.methods.frame.rates import with_rate
from dd_jax.methods.frame.registry import METHODS, Method, Published, get
from dd_jax.methods.frame.settings import (
    ConvNets,
    NormedConvNets,
    Pixels,
    Settings,
    Site,
    Tested,
    Whitened,
    default_depth,
    plan_of,
    preset,
)

__all__ = ["ConvNets", "Decay", "GradientDistance", "LabelHead", "LearnedRate", "METHODS", "Method",
           "Must", "Norm", "Normalisation", "NormedConvNets", "Pixels", "Published", "Rate", "Seed",
           "Settings", "Share", "Site", "Start", "Tested", "Views", "Whitened", "Whole",
           "above_zero", "at_least", "default_depth", "get", "one_of", "plan_of", "preset",
           "with_rate"]
