"""Kernel ridge regression on a distilled set predicts the test labels, without any network.

  P = K(X_test, X_s) (K(X_s, X_s) + mu I)^{-1} Y_s,   the prediction is argmax_k P_k

Of a set with weights w, divided by their mean, the squared error of image i counts w_i times:

  P = K(X_test, X_s) D (D K(X_s, X_s) D + mu I)^{-1} D Y_s,   D = diag(sqrt(w))

A label store is not used: the labels are the set's own.

Source: Nguyen et al., Dataset Meta-Learning from Kernel Ridge-Regression, ICLR 2021.
"""

from __future__ import annotations

import time
from functools import partial

import jax
import jax.numpy as jnp

from dd_jax import kernels
from dd_jax.backend import as_key, own_dtypes, refuse_forked
from dd_jax.data import normalise
from dd_jax.errors import ConfigError, SetFileError, require_whole
from dd_jax.evaluate.checks import check_fits, check_set, check_split
from dd_jax.evaluate.evaluate import Evaluation, summarise
from dd_jax.evaluate.random_images import budget, has_random, random_images
from dd_jax.evaluate.settings import ReadOut
from dd_jax.solvers import fit_kernel, in_float64
from dd_jax.solvers.system import widened
from dd_jax.store import DistilledSet
from dd_jax.synthetic import targets
from dd_jax.types import Kernel, RealData, Split


def own_read_out(distilled: DistilledSet) -> ReadOut:
    """The kernel regression that a set was made for.

    Raises:
      ConfigError: the set's method has none.
      SetFileError: the set's record of it is not readable.
    """
    record = distilled.evaluation.get("read_out")
    if record is None:
        raise ConfigError(
            f"the set of {distilled.recipe.get('method', 'an unknown method')} names no kernel",
            fix="choose one, for example ReadOut('fc3') or --kernel fc3",
        )
    try:
        return ReadOut(**record)
    except TypeError as error:
        raise SetFileError(f"the set's read-out is not readable: {error}",
                           fix="use the version of dd_jax that wrote the set") from error


@partial(jax.jit, static_argnames=("kernel", "ridge", "mode", "chunk"))
def _accuracy(images, labels, weights, test, normaliser, *, kernel, ridge, mode, chunk):
    kernel = kernels.blockwise(kernel)
    alpha = _coefficients(in_float64(kernel.gram)(images), labels, weights, ridge=ridge, mode=mode)
    total = test.labels.shape[0]
    padding = -total % chunk
    rows = jnp.minimum(jnp.arange(total + padding), total - 1).reshape(-1, chunk)

    def predict(row):
        real = normalise(normaliser, test.images[row])
        return jnp.argmax(jnp.matmul(kernel(real, images), alpha, precision="highest"), -1)

    predicted = jax.lax.map(predict, rows).reshape(-1)[:total]
    return jnp.mean(predicted == test.labels)


def _coefficients(gram, labels, weights, *, ridge, mode) -> jax.Array:
    """[M, K], of which P = K(X_test, X_s) times it."""
    if weights is None:
        return fit_kernel(gram, labels, ridge=ridge, mode=mode).alpha
    root = jnp.sqrt(weights / jnp.mean(weights))[:, None]
    with widened():  # as wide as the matrix comes
        wide = root.astype(gram.dtype)
        gram = wide * gram * wide.T
    return root * fit_kernel(gram, root * labels, ridge=ridge, mode=mode).alpha


def check_read_out(distilled: DistilledSet, test: RealData, kernel: Kernel) -> None:
    """Refuses what a kernel regression cannot predict from, before anything is computed.

    Raises:
      SetFileError: shapes or classes do not match.
      ConfigError: labels that name no class, a set without images, or a kernel that does not fit
        its images.
    """
    check_set(distilled)
    check_fits(distilled.spec, test)
    if distilled.label_kind == "representations":
        raise ConfigError("the labels are representations, which name no class",
                          fix="call evaluate.evaluate_transfer")
    size = distilled.synthetic.images.shape[0]
    if size == 0:
        raise ConfigError("the set has 0 images, expected at least 1",
                          fix="select at least one image")
    images = jax.ShapeDtypeStruct((size, *distilled.spec.shape), jnp.float32)
    jax.eval_shape(kernel.gram, images)


def _tested(sets, distilled, test, by, kernel, chunk) -> Evaluation:
    check_set(distilled)
    refuse_forked()
    if by is None:
        own = kernel is None or "read_out" in distilled.evaluation
        by = own_read_out(distilled) if own else ReadOut("fc1")  # for its ridge only
    used = kernel or kernels.named(by.kernel, kind=by.kind)
    check_read_out(distilled, test, used)
    require_whole("chunk", chunk, example=500)
    start = time.perf_counter()
    accuracies = [
        _accuracy(images, labels, weights, test, distilled.normaliser, kernel=used, ridge=by.ridge,
                  mode=by.mode, chunk=min(chunk, test.labels.shape[0]))
        for images, labels, weights in sets
    ]
    return summarise(jnp.stack(accuracies), start)


@own_dtypes()
def read_out(
    distilled: DistilledSet,
    test: RealData,
    *,
    by: ReadOut | None = None,
    kernel: Kernel | None = None,
    chunk: int = 500,
) -> Evaluation:
    """Test accuracy of kernel ridge regression on a set.

    Args:
      distilled: the set.
      test: real test data of the same shape and classes.
      by: kernel and ridge; the set's own by default.
      kernel: any other kernel in place of the named one, with `by`'s ridge.
      chunk: test images whose kernel rows are held at a time.

    Returns:
      An `Evaluation` with one accuracy, for nothing in it is random.

    Raises:
      ConfigError: the set names no kernel and none is given.
      SetFileError: shapes or classes do not match.
    """
    shown = distilled.trainable()
    sets = [(shown.images, shown.labels, shown.weights)]
    return _tested(sets, distilled, test, by, kernel, chunk)


@own_dtypes()
def read_out_random(
    distilled: DistilledSet,
    data: Split,
    *,
    key: int | jax.Array,
    seeds: int = 5,
    by: ReadOut | None = None,
    kernel: Kernel | None = None,
    chunk: int = 500,
) -> Evaluation:
    """The baseline of `read_out`: as many random real images with hard labels of the same kind.

    Args:
      distilled: whose budget, normaliser and label kind are used.
      data: the real set.
      key: an integer seed or a typed PRNG key.
      seeds: how many random choices.
      by, kernel, chunk: as for `read_out`.

    Returns:
      An `Evaluation` with one accuracy for each choice.
    """
    check_set(distilled)
    check_split(data)
    require_whole("seeds", seeds, example=5)
    key = as_key(key)
    if not has_random(distilled, data.train):
        raise ConfigError("the real set has fewer images of a class than the set",
                          fix="leave this baseline out")
    sets = []
    for seed in range(seeds):
        images, classes = random_images(data.train, jax.random.fold_in(key, seed),
                                        budget(distilled))
        labels = targets(classes, distilled.spec.num_classes, kind=distilled.label_kind,
                         scale=distilled.label_scale)
        sets.append((normalise(distilled.normaliser, images), labels, None))
    return _tested(sets, distilled, data.test, by, kernel, chunk)
