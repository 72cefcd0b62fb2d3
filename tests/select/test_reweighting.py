"""Weights learned on a coreset: against float64 with loops and central differences."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dd_jax as dd
from dd_jax import nets
from dd_jax.data import from_arrays, standardise
from dd_jax.errors import ConfigError, DataError, NonFiniteError
from dd_jax.select import Chosen, MetaWeights, whole_set_weights
from dd_jax.select.meta_weights import weights_of
from dd_jax.select.reweighting import learned_weights, meta_size, meta_split, of_mean_one
from dd_jax.store.artefacts import ArtefactStore
from dd_jax.train import fit, planned, real_images
from tests.laws import members
from tests.methods import tiny
from tests.objectives import reference_gradients as reference

NETWORK = nets.mlp(members.SPEC, width=6, depth=2)
RATE, NET_RATE = 0.3, 0.7
BY = MetaWeights(NETWORK, RATE, optax.sgd(NET_RATE), batch_size=5, width=4)


def batch(count, seed):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(count, *members.SHAPE)).astype(np.float32)
    return images, np.eye(2, dtype=np.float32)[rng.integers(0, 2, count)]


BATCH, META = batch(5, 0), batch(3, 1)


def slow_losses(params, images, labels):
    logits = (reference.hidden(params, images) @ params["head"]["kernel"]
              + params["head"]["bias"])
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(logits).sum(axis=1)) - (logits * labels).sum(axis=1)


def slow_weights(theta, losses):
    hidden = [np.maximum(loss * theta["hidden"]["kernel"][0] + theta["hidden"]["bias"], 0)
              for loss in losses]
    return np.array([1 / (1 + np.exp(-(h @ theta["out"]["kernel"][:, 0] + theta["out"]["bias"][0])))
                     for h in hidden])


def moved(params, gradient, by):
    return jax.tree.map(lambda p, g: p - by * g, params, gradient)


def slow_descent(params, theta):
    """w - (a / B) sum_i V(l_i) grad l_i, image by image."""
    images, labels = BATCH
    weights = slow_weights(theta, slow_losses(params, images, labels))
    for i, weight in enumerate(weights):
        own = reference.gradient(reference_params, images[i: i + 1], labels[i: i + 1])
        params = moved(params, own, RATE / len(weights) * weight)
    return params


def slow_meta_gradient(params, theta):
    """Central differences of the mean meta loss after the virtual step, number by number."""
    def judged(theta):
        return slow_losses(slow_descent(params, theta), *META).mean()

    found = jax.tree.map(np.zeros_like, theta)
    for layer, leaves in theta.items():
        for name, leaf in leaves.items():
            for place in np.ndindex(leaf.shape):
                kept = leaf[place]
                values = []
                for step in (1e-5, -1e-5):
                    leaf[place] = kept + step
                    values.append(judged(theta))
                leaf[place] = kept
                found[layer][name][place] = (values[0] - values[1]) / 2e-5
    return found


STATE = BY.begin(jax.random.key(2))
reference_params = reference.as_float64(STATE.variables["params"])


def close(ours, wanted, **tolerance):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def test_the_meta_gradient_is_that_of_finite_differences():
    theta = reference.as_float64(STATE.theta)
    wanted = slow_meta_gradient(reference_params, theta)
    ours = jax.jit(BY.meta_gradient)(STATE.variables, STATE.theta, BATCH, META)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted))
    assert largest > 1e-4
    close(ours, wanted, rtol=1e-3, atol=1e-4 * largest)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_meta_gradient_is_that_through_the_virtual_step(norm):
    """Of a ConvNet, whose step is differentiated as a whole."""
    by = BY._replace(network=nets.convnet(members.SPEC, depth=1, width=3, norm=norm))
    state = by.begin(jax.random.key(0))

    @jax.jit
    def both(variables, theta):
        def judged(theta):
            params = variables["params"]
            losses = jax.lax.stop_gradient(by.losses(variables, params, BATCH)[0])
            downhill, _ = by.gradient(variables, BATCH, weights_of(theta, losses))
            ahead = jax.tree.map(lambda p, g: p - RATE * g, params, downhill)
            return jnp.mean(by.losses(variables, ahead, META)[0])

        return jax.grad(judged)(theta), by.meta_gradient(variables, theta, BATCH, META)

    wanted, ours = both(state.variables, state.theta)
    close(ours, wanted, rtol=1e-3, atol=1e-6)


def test_one_step_is_that_of_loops_in_float64():
    theta = reference.as_float64(STATE.theta)
    after = moved(theta, slow_meta_gradient(reference_params, theta), NET_RATE)
    params = slow_descent(reference_params, after)
    ours = jax.jit(BY.step)(STATE, BATCH, META)
    close(ours.theta, after, rtol=1e-4, atol=1e-6)
    close(ours.variables["params"], params, rtol=1e-4, atol=1e-6)
    assert max(np.abs(a - b).max() for a, b in zip(
        jax.tree.leaves(after), jax.tree.leaves(theta))) > 1e-4
    weights, losses = BY.judged(ours, *BATCH)
    close(losses, slow_losses(params, *BATCH), rtol=1e-4)
    close(weights, slow_weights(after, slow_losses(params, *BATCH)), rtol=1e-4)


def test_running_statistics_are_those_of_the_real_step_alone():
    by = BY._replace(network=nets.convnet(members.SPEC, depth=1, width=3, norm="batch"))
    state = by.begin(jax.random.key(0))
    after = by.step(state, BATCH, META).variables["batch_stats"]
    wanted = by.losses(state.variables, state.variables["params"], BATCH)[1]["batch_stats"]
    close(after, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("labels,judging", [
    ([0, 1], 2), ([0, 0, 1, 1], 2), ([0] * 9 + [1] * 3, 6), ([0] * 300 + [1] * 300, 100),
    ([0] + [1] * 5, 3),
])
def test_classes_judge_evenly_and_keep_an_image(labels, judging):
    labels = np.array(labels)
    found, others = meta_split(labels, jax.random.key(0))
    assert len(found) == judging and found.dtype == others.dtype == np.int32
    if len(labels) == 2:  # one image of each
        assert found.tolist() == others.tolist() == [0, 1]
        return
    assert sorted([*found, *others]) == list(range(len(labels)))
    held = np.bincount(labels[found], minlength=2)
    most = np.bincount(labels) - 1
    assert (held <= most).all() and (held.max() - held.min() <= 1 or (held == most).any())
    assert meta_split(labels, jax.random.key(0))[0].tolist() == found.tolist()
    if len(labels) > 20:
        assert meta_split(labels, jax.random.key(1))[0].tolist() != found.tolist()


def test_sizes_of_what_judges():
    assert [meta_size(n) for n in (1, 2, 3, 100, 200, 5000, 6000)] == [1, 1, 1, 50, 100, 100, 120]


def slow_broadcast(points, labels, rows, weights):
    found = []
    for i, point in enumerate(np.asarray(points, np.float64)):
        far = [np.linalg.norm(point - np.float64(points[row])) if labels[row] == labels[i]
               else np.inf for row in rows]
        found.append(weights[int(np.argmin(far))])
    return np.array(found) / np.mean(found)


def test_an_image_takes_the_weight_of_its_class_s_nearest(monkeypatch):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    points = np.float32(rng.normal(size=(90, 4)) + 100)  # far from 0, where squares lose digits
    rows = np.concatenate([np.flatnonzero(labels == label)[:4] for label in (2, 0, 1)])
    weights = rng.uniform(0.1, 1, 12).astype(np.float32)
    wanted = slow_broadcast(points, labels, rows, weights)
    for most in (2**22, 12):  # in one block, and three images at a time
        monkeypatch.setattr("dd_jax.select.reweighting._MOST_NUMBERS", most)
        ours = whole_set_weights(points, labels, Chosen(rows, weights))
        assert ours.dtype == np.float32 and abs(ours.mean() - 1) < 1e-5
        np.testing.assert_allclose(ours, wanted, rtol=1e-5)
    np.testing.assert_allclose(ours[rows] / ours[rows].sum(), weights / weights.sum(), rtol=1e-5)


def test_what_cannot_be_is_refused():
    points, labels = np.zeros((3, 2)), np.array([0, 1, 1])
    with pytest.raises(DataError, match="no image of class 0"):
        whole_set_weights(points, labels, Chosen(np.array([1]), np.ones(1)))
    with pytest.raises(ConfigError, match="3 rows of features and 2 labels"):
        whole_set_weights(points, labels[:2], Chosen(np.array([1]), np.ones(1)))
    for weights in ([0.0, 0.0], [1.0, np.nan], [2.0, -1.0]):
        with pytest.raises(ConfigError, match="not all of them 0"):
            of_mean_one(weights)
    with pytest.raises(NonFiniteError, match="diverged within 20 steps"):
        learned_weights(BY._replace(rate=1e38), members.toy_data(), np.arange(8),
                        standardise(members.toy_data()), steps=20, key=jax.random.key(0))


def noisy():
    """Toy images, of which two of each class have the other's label; with their rows."""
    toy = members.toy_data()
    labels, wrong = np.array(toy.labels), np.array([0, 1, 10, 11])
    labels[wrong] = 1 - labels[wrong]
    return from_arrays(np.asarray(toy.images), labels, name="toy", num_classes=2), wrong


def test_wrongly_labelled_images_come_to_count_less():
    """Images that judge are right by chance of this key, as the paper's coresets shall be."""
    data, wrong = noisy()
    rows = np.arange(64)
    judging = meta_split(np.asarray(data.labels), jax.random.fold_in(jax.random.key(1), 0))[0]
    by = MetaWeights(nets.mlp(members.SPEC, width=16), 0.1, optax.adam(0.02), 32, 20)
    found = learned_weights(by, data, rows, standardise(data), steps=400, key=jax.random.key(1))
    assert found.shape == (64,) and abs(found.mean() - 1) < 1e-5
    assert len(set(judging.tolist()) & set(wrong.tolist())) <= 2
    assert found[wrong].mean() < 0.6 * np.delete(found, wrong).mean()


def test_weights_are_the_same_wherever_the_images_are():
    toy = members.toy_data()
    host = dataclasses.replace(toy, images=np.asarray(toy.images))
    found = [learned_weights(BY, data, np.array([5, 1, 8, 2, 3, 4]), standardise(toy), steps=4,
                             key=jax.random.key(0)) for data in (toy, host)]
    np.testing.assert_array_equal(*found)


def test_the_method_s_coreset_is_the_moderate_one_and_fit_takes_its_weights(tmp_path):
    """A step of `fit` by the whole set's weights goes along sum w grad l / sum w."""
    data, store = members.toy_data(), ArtefactStore(tmp_path)
    plan = tiny.plan("cw_erm", ipc=6, weight_net_rate=0.5)
    done = dd.distill(plan, data, artefacts=store, show_progress=False)
    plain = dd.distill(tiny.plan("moderate", ipc=6), data, artefacts=store, show_progress=False)
    assert done.recipe["rows"] == plain.recipe["rows"]
    kinds = [entry.split("-")[0] for entry, how, _ in store.report if how == "made"]
    assert kinds.count("selection") == kinds.count("weights") == 1
    coreset = Chosen(np.asarray(done.recipe["rows"]), np.asarray(done.synthetic.weights))
    assert len(set(coreset.weights.tolist())) > 1 and abs(coreset.weights.mean() - 1) < 1e-5
    assert dd.evaluate(done, data).mean >= 0 and done.stored_bytes == done.cost_bytes.total

    points = np.asarray(data.images).reshape(64, -1)
    weights = whole_set_weights(points, data.labels, coreset)
    np.testing.assert_allclose(
        weights, slow_broadcast(points, np.asarray(data.labels), *coreset), rtol=1e-5)
    take, rows = real_images(data, standardise(data)), np.array([[3, 9, 4, 20, 41, 8]])
    fitted = fit(NETWORK, STATE.variables, take=take, weights=jnp.asarray(weights),
                 batches=planned(jnp.asarray(rows), epochs=1, steps=1), optimizer=optax.sgd(1.0),
                 key=jax.random.key(0))
    images, labels = take(jnp.asarray(rows[0]))
    params, counted = reference_params, weights[rows[0]].astype(np.float64)
    for i, weight in enumerate(counted / counted.sum()):
        own = reference.gradient(reference_params, images[i: i + 1], labels[i: i + 1])
        params = moved(params, own, weight)
    close(fitted.variables["params"], params, rtol=1e-4, atol=1e-6)
