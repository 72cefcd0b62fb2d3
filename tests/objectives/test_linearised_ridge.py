"""The implicit meta-gradient of a linearised network against literal and exact references."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets, pools
from dd_jax.errors import ConfigError
from dd_jax.objectives.linearised import inner_problem, outer_value, trained_part
from dd_jax.objectives.linearised_gradient import capped
from dd_jax.objectives.linearised_ridge import linearised_ridge
from dd_jax.solvers.solver_rate import followed, solver_rate
from dd_jax.types import Batch, Network, Pool
from tests.laws import members
from tests.objectives import reference_linearised as reference

RATES = (3e-3, 1e-1)


def wide(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, tree)


def smooth_network():
    return nets.convnet(members.SPEC, depth=1, width=3, norm="none", activation="softplus60")


def problem(network, temperature=0.3):
    """Float64 variables, a synthetic set, a real batch; call inside enable_x64."""
    rng = np.random.default_rng(3)
    variables = wide(network.init(jax.random.key(2)))
    synthetic = wide(members.start())._replace(log_temperature=jnp.asarray(temperature))
    labels = synthetic.labels + 0.05 * jnp.asarray(rng.normal(size=synthetic.labels.shape))
    batch = Batch(jnp.asarray(rng.normal(size=(10, *members.SHAPE))),
                  jnp.asarray(rng.integers(0, members.CLASSES, 10)))
    return variables, synthetic._replace(labels=labels), batch


def always(variables):
    """The pool of one network that never changes."""
    return Pool(lambda key, synthetic: (), lambda state, key: variables, lambda state, s, k: state)


def measured(variables, network, synthetic, batch, rates=RATES, **options):
    """Loss, gradient and metrics of the objective, with given solver rates."""
    options = {"batch_size": 10, "flip": True, "chunk": 4, **options}
    objective = linearised_ridge(network, always(variables), **options)
    cheap = linearised_ridge(network, always(variables), **{**options, "solver": "cg"})
    state = cheap.init(jax.random.key(0), synthetic)  # without a search for rates
    state = state._replace(inner=solver_rate(0.0)._replace(rate=jnp.asarray(rates[0])),
                           adjoint=jnp.asarray(rates[1]))
    (value, metrics), gradient = jax.value_and_grad(
        lambda s: objective.loss(s, state, batch, jax.random.key(0)), has_aux=True
    )(synthetic)
    return value, gradient, metrics


def psi(synthetic):
    return synthetic.images, synthetic.labels, synthetic.log_temperature


def errors(gradient, expected):
    return [float(jnp.linalg.norm((a - b).ravel()) / jnp.linalg.norm(b.ravel()))
            for a, b in zip(psi(gradient), expected)]


def test_the_exact_gradient_is_that_of_the_dual_kernel_regression():
    with jax.enable_x64(True):
        network = smooth_network()
        variables, synthetic, batch = problem(network)
        value, gradient, metrics = measured(variables, network, synthetic, batch, solver="cg",
                                            solver_steps=200, cap=False)
        expected, wanted = jax.jit(jax.value_and_grad(
            lambda p: reference.dual_loss(network, variables, p, batch, lam=4 * 5e-4, flip=True)
        ))(psi(synthetic))
        np.testing.assert_allclose(value, expected, rtol=1e-11)
        found = errors(gradient, wanted)
        print("errors against the dual solution", found)
        assert max(found) < 1e-8
        assert metrics["inner_residual"] < 1e-12 and metrics["adjoint_residual"] < 1e-12
        assert metrics["implicit_ratio"] > 0.05  # there was something to test


def test_twenty_adam_steps_are_those_of_the_literal_formulas():
    with jax.enable_x64(True):
        network = nets.mlp(members.SPEC, width=6)
        variables, synthetic, batch = problem(network, temperature=0.0)
        options = dict(lam=4 * 5e-2, flip=True, rates=RATES)
        # No temperature is a temperature of one that is not learned.
        value, gradient, metrics = measured(variables, network,
                                            synthetic._replace(log_temperature=None), batch,
                                            l2_rate=5e-2)
        expected, wanted = jax.jit(
            lambda p: reference.meta_gradient(network, variables, p, batch, **options)
        )(psi(synthetic))
        np.testing.assert_allclose(value, expected, rtol=1e-11)
        assert gradient.log_temperature is None
        found = errors(gradient._replace(log_temperature=wanted[2]), wanted)
        print("errors against the literal formulas", found, dict(metrics))
        assert max(found) < 1e-8
        assert 0 < metrics["inner_residual"] < 1
        assert metrics["implicit_ratio"] > 1  # so that the cap was at work


def test_the_implicit_gradient_is_that_of_a_long_unroll():
    with jax.enable_x64(True):
        network = nets.mlp(members.SPEC, width=6)
        variables, synthetic, batch = problem(network)
        lam = 4 * 5.0
        _, gradient, metrics = measured(variables, network, synthetic, batch, l2_rate=5.0,
                                        flip=False, solver="cg", solver_steps=60, cap=False)
        assert metrics["implicit_ratio"] > 0.01

        def unrolled(p):
            slope = jax.grad(lambda w: reference.inner_loss(network, variables, w, p, lam, False))

            def step(omega, _):
                g = reference.without_head(slope(omega))
                return jax.tree.map(lambda w, g: w - 0.25 * g * 8 / lam, omega, g), None

            zero = jax.tree.map(jnp.zeros_like, variables["params"])
            omega = jax.lax.scan(step, zero, None, length=400)[0]
            return reference.outer_loss(network, variables, omega, p, batch, lam, False)

        found = errors(gradient, jax.jit(jax.grad(unrolled))(psi(synthetic)))
        print("errors against 400 unrolled steps", found)
        assert max(found) < 1e-8


def test_the_collapsed_inner_loss_is_the_literal_one():
    with jax.enable_x64(True):
        network = nets.mlp(members.SPEC, width=6)
        variables, synthetic, _ = problem(network)
        waves = jax.tree.map(lambda x: np.cos(np.arange(x.size)).reshape(x.shape),
                             variables["params"])

        @jax.jit
        def both():
            omega = trained_part({"params": waves})
            inner = inner_problem(network, variables, synthetic, ridge=0.02)
            quadratic = 0.5 * optax.tree.vdot(omega, inner.hessian(omega))
            quadratic = quadratic - optax.tree.vdot(omega, inner.right_hand_side())

            def literal(scale):
                full = jax.tree.map(lambda x: scale * x, reference.without_head(waves))
                return reference.inner_loss(network, variables, full, psi(synthetic), 0.02, False)

            return quadratic, literal(1.0) - literal(0.0)

        np.testing.assert_allclose(*both(), rtol=1e-9)


def test_chunks_do_not_change_the_outer_value():
    with jax.enable_x64(True):
        network = nets.mlp(members.SPEC, width=6)
        variables, _, batch = problem(network)
        omega = jax.tree.map(jnp.ones_like, trained_part(variables))
        weights = jnp.asarray(np.random.default_rng(0).normal(size=(6, members.CLASSES)))
        one, many = jax.jit(lambda: [
            outer_value(network, variables, omega, weights, jnp.asarray(0.1), batch, chunk=size)
            for size in (10, 3)
        ])()
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many)):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


def test_a_capped_leaf_has_at_most_the_norm_of_its_reference():
    tree = {"a": jnp.array([30.0, 40.0]), "b": jnp.array([0.3]), "c": jnp.zeros(2)}
    reference_tree = {"a": jnp.array([0.0, 5.0]), "b": jnp.array([1.0]), "c": jnp.zeros(2)}
    out = capped(tree, reference_tree)
    np.testing.assert_allclose(out["a"], [3.0, 4.0], rtol=1e-6)
    np.testing.assert_array_equal(out["b"], tree["b"])
    np.testing.assert_array_equal(out["c"], 0.0)


@pytest.mark.parametrize("bad,monotone,factor",
                         [(2, 3, 0.9), (1, 4, 1.05), (1, 3, 1.0), (5, 0, 0.9)])
def test_the_rate_follows_the_watched_runs(bad, monotone, factor):
    """Of five watched runs `bad` end above their start and `monotone` fall in every step."""
    runs = [[-1.0, 1.0]] * bad + [[-1.0, -2.0]] * monotone
    runs += [[-2.0, -1.0]] * (5 - len(runs))
    table = jnp.asarray(runs)

    def step(state, _):
        return followed(state, lambda rate: table[state.step // 10]), state.rate

    state, before = jax.lax.scan(step, solver_rate(1.0), None, length=50)
    np.testing.assert_array_equal(before, 1.0)
    np.testing.assert_allclose(state.rate, factor, rtol=1e-6)
    assert (int(state.step), int(state.above), int(state.monotone)) == (50, 0, 0)


@pytest.mark.parametrize("options,named", [
    ({"solver": "newton"}, "newton"), ({"l2_rate": 0.0}, "l2_rate"),
    ({"l2_rate": float("nan")}, "l2_rate"), ({"solver_steps": 0}, "solver_steps"),
], ids=["solver", "zero", "nan", "steps"])
def test_bad_settings_are_refused(options, named):
    network = nets.mlp(members.SPEC, width=4)
    with pytest.raises(ConfigError, match=named):
        linearised_ridge(network, pools.fresh_pool(network), **options)


def test_a_network_without_a_head_is_refused():
    network = Network(lambda key: {"params": {"last": {"kernel": jnp.zeros((2, 2))}}}, None, "odd")
    with pytest.raises(ConfigError, match="last.*head"):
        linearised_ridge(network, pools.fresh_pool(network))
