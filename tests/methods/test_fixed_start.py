"""DD for one fixed network: the test's network is the one that the set was made for."""

from __future__ import annotations

import jax
import numpy as np

from dd_jax import methods
from dd_jax.evaluate.build import build_network
from dd_jax.methods.frame import Site
from tests.laws import members


def test_the_networks_of_distillation_and_test_start_alike():
    data = members.toy_data()
    settings = methods.preset("dd", initialisation="fixed", network_seed=7, depth=2, width=3)
    evaluation = methods.plan_with("dd", settings, data).build({}).evaluation
    network = Site(settings, data, whitening=None).convnet()

    @jax.jit
    def both(key):
        return network.init(key), build_network(evaluation, data.spec).init(key)

    distilled, tested = both(jax.random.key(evaluation.start_seed))
    assert evaluation.start_seed == 7
    assert jax.tree.structure(distilled) == jax.tree.structure(tested)
    jax.tree.map(np.testing.assert_array_equal, distilled, tested)
