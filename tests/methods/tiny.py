"""Settings with which every method runs in seconds on `members.toy_data()`."""

from __future__ import annotations

import dd_jax as dd
from dd_jax import methods
from tests.laws import members

_CONV = dict(width=2, depth=1)
_TEST = dict(evaluation_width=2, evaluation_epochs=2)
_SMALL = dict(_CONV, **_TEST, batch_size=2)
_LOOPS = dict(_SMALL, networks=2)
_IDC = dict(_LOOPS, train_images=8, network_batch_size=4, uses=2)
_TRAJECTORY = dict(width=8, depth=1, **_TEST, steps=6, inner_steps=4, max_start=1, span=2, rate=0.1,
                   image_rate=5.0, rate_rate=1e-3, augmentation="none", batch_size=None,
                   expert_count=2, expert_epochs=3, expert_batch_size=16, expert_rate=0.1,
                   expert_seed=5)  # whose two experts are about as far from their ends
_UNROLLED = dict(width=8, depth=1, steps=40, batch_size=32)
_DD = dict(_UNROLLED, epochs=3, rate=0.05, image_rate=0.1, bank=2, bank_steps=2)
_WINDOWED = dict(_UNROLLED, window=3, inner_steps=6, hold=2, inner_rate=0.02, image_rate=0.1,
                 label_rate=0.1, normaliser="standardise", augmentation="none", evaluation_steps=6)
_LOOKED = dict(_CONV, **_TEST, network_epochs=2, network_batch_size=16)
_RECORDED = dict(_LOOKED, networks=2)

TINY = {
    "archaeology": dict(_RECORDED, neighbours=3),
    "ast": dict(_TRAJECTORY, shake=0.01, rate=0.02, rate_rate=1e-5, image_rate=20.0),
    "att": _TRAJECTORY,
    "cafe": dict(width=2, depth=2, **_TEST, batch_size=6, measure_size=4, max_uses=3, max_epochs=4,
                 window=2, networks=30, uses=2),
    "cal": _LOOKED,
    "ccfs": dict(_RECORDED, networks=1, filter_epochs=1, filter_batch_size=4),
    "cartography": _RECORDED,
    "cw_erm": dict(_LOOKED, weight_steps=3, weight_batch_size=4, weight_net_width=5),
    "craig": _LOOKED,
    "datadam": dict(width=2, depth=2, **_TEST, batch_size=4, steps=4),
    "datm": dict(_TRAJECTORY, label_rate=1.0, threshold=10.0, first_max_start=None,
                 growth_steps=0),
    "dc": _LOOPS,
    "dcc": dict(_LOOPS, warm_networks=1, warm_uses=1),
    "dd": _DD,
    "deepfool": _LOOKED,
    "dm": dict(_SMALL, steps=4),
    "dq": dict(_LOOKED, bins=4),
    "dream": dict(_IDC, candidates=8),
    "dsa": _LOOPS,
    "dsac": dict(_LOOPS, warm_networks=1, warm_uses=1),
    "el2n": _RECORDED,
    "entropy": _RECORDED,
    "facility_location": _LOOKED,
    "forgetting": _RECORDED,
    "frepo": dict(_CONV, batch_size=8, pool_size=2, max_age=2, evaluation_width=2, steps=4),
    "ftd": _TRAJECTORY,
    "fyi": _LOOPS,
    "grad_match": _LOOKED,
    "grand": _RECORDED,
    "graph_cut": _LOOKED,
    "herding": _LOOKED,
    "idc": _IDC,
    "idm": dict(_CONV, **_TEST, batch_size=4, iterations=2, queue_start=1, queue_capacity=2,
                queue_every=3, queue_trained=1, queue_steps=2, queue_batch_size=4),
    "influence_distillation": dict(_LOOKED, landmarks=40),
    "k_center": _LOOKED,
    "k_means": _LOOKED,
    "kip": dict(kernel="fc1", batch_size=64, steps=4, evaluation_width=2),
    "krr_st": dict(_CONV, steps=3, batch_size=16, pool_size=2, max_age=3, teacher_width=2,
                   teacher_steps=2, teacher_batch_size=8, teacher_projector=8),
    "label_distillation": dict(_UNROLLED, inner_rate=0.2, label_rate=0.02, inner_batch_size=2,
                               window=5, evaluation_steps=4),
    "label_solve": dict(kernel="fc1", evaluation_width=2),
    "least_confidence": _RECORDED,
    "linba": dict(_UNROLLED, bases=3, inner_steps=5, inner_rate=0.05, memory_rate=1.0, per_class=3,
                  batch_size=8, evaluation_epochs=4),
    "m3d": dict(_CONV, **_TEST, batch_size=4, iterations=2, uses=2),
    "margin": _RECORDED,
    "moderate": _LOOKED,
    "mtt": _TRAJECTORY,
    "ncfm": dict(_CONV, **_TEST, iterations=3, batch_size=8, frequencies=16, bank=2, bank_steps=4,
                 bank_batch_size=16, matching="none"),
    "pca": _RECORDED,
    "pdd": _TRAJECTORY,
    "podd": dict(_WINDOWED, patch_batch=4, labels="learned"),
    "random": _TEST,
    "rat_bptt": dict(_WINDOWED, per_class=1),
    "rcig": dict(_CONV, batch_size=8, pool_size=2, solver_steps=2, steps=2, evaluation_width=2),
    "rfad": dict(width=4, depth=1, networks=2, batch_size=16, steps=3, evaluation_width=4),
    "robust_active": _RECORDED,
    "soft_label_dd": _DD,
    "tesla": _TRAJECTORY,
    "wmdd": dict(steps=30, teacher_width=4, teacher_epochs=8, teacher_batch_size=16,
                 teacher_rate=0.05, area=0.8, roll=1, mirror_views=True, evaluation_width=4,
                 evaluation_epochs=5),
}

# Changes of these by which a teacher is small, or as it starts.
UNTAUGHT = {"wmdd": dict(teacher_epochs=0, teacher="convnet"), "krr_st": dict(teacher="convnet")}


def plan(name, data=None, **changes):
    """The plan of a method on toy images with tiny settings, and changes of these."""
    return methods.plan(name, data or members.toy_data(), **{**TINY[name], **changes})


def made(name, store, data=None, **changes):
    """The set of a method on toy images, its artefacts in that store."""
    data = data or members.toy_data()
    return dd.distill(plan(name, data, **changes), data, artefacts=store, show_progress=False)


def recipe(name, data=None, **changes):
    """The same as a complete recipe."""
    return methods.recipe(name, data or members.toy_data(), **{**TINY[name], **changes})
