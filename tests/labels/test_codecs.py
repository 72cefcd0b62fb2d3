"""Codecs against plain NumPy writings of the same rules, their errors against what they promise."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from dd_jax.errors import ConfigError, SetFileError
from dd_jax.labels.codecs import (
    CODECS,
    Full,
    LowRank,
    Quantised,
    TopK,
    bytes_of,
    codec_card,
    codec_from_card,
    coded,
)

HALF = 2.0**-11


def logits(count=40, classes=10, scale=6.0, seed=0):
    return (scale * np.random.default_rng(seed).normal(size=(count, classes))).astype(np.float32)


def softmax(z):
    shares = np.exp(z.astype(np.float64) - z.max(axis=-1, keepdims=True))
    return (shares / shares.sum(axis=-1, keepdims=True)).astype(np.float32)


def round_trip(labels, codec):
    arrays = coded(labels, codec)
    return arrays, np.asarray(jax.jit(codec.decode)(arrays))


def all_codecs(classes):
    kept = min(5, classes)
    return [Full(classes), Full(classes, "probabilities"), Full(classes, dtype="float32"),
            *(TopK(classes, kept, rest) for rest in ("uniform", "renormalised", "absent")),
            TopK(classes, 1), TopK(classes, classes),
            *(Quantised(classes, bits) for bits in range(2, 9)), Quantised(classes, 3, "store"),
            LowRank(classes, kept), LowRank(classes, 1)]


@pytest.mark.parametrize("classes", [2, 10, 300])
def test_bytes_are_told_beforehand(classes):
    for codec in all_codecs(classes):
        labels = logits(7, classes)
        labels = softmax(labels) if codec.kind == "probabilities" else labels
        arrays, back = round_trip(labels, codec)
        assert bytes_of(codec, 7) == sum(np.asarray(x).nbytes for x in arrays.values()), codec
        assert back.shape == labels.shape and back.dtype == np.float32
        told = {**{n: ((7, *s.shape), s.dtype) for n, s in codec.rows().items()},
                **{n: (s.shape, s.dtype) for n, s in codec.shared().items()}}
        assert told == {n: (np.shape(x), np.asarray(x).dtype) for n, x in arrays.items()}
        assert codec_from_card(codec_card(codec)) == codec


def test_leading_axes_are_kept_and_rows_can_be_gathered_before_decoding():
    labels = logits(24).reshape(4, 6, 10)
    for codec in all_codecs(10):
        arrays, back = round_trip(labels, codec)
        rows = {n: x[2, 3:5] for n, x in arrays.items() if n not in codec.shared()}
        rows |= {n: arrays[n] for n in codec.shared()}
        np.testing.assert_array_equal(codec.decode(rows), back[2, 3:5])


def test_half_precision_is_numpys_and_within_its_bound():
    labels = np.concatenate([logits(), np.float32([[0, 1e-8, -1e-7, 65504, 1, 2, 3, 4, 5, 80]])])
    arrays, back = round_trip(labels, Full(10))
    np.testing.assert_array_equal(arrays["values"], labels.astype(np.float16))
    assert (np.abs(back - labels) <= HALF * np.abs(labels) + 2.0**-25).all()
    np.testing.assert_array_equal(round_trip(labels, Full(10, dtype="float32"))[1], labels)


def plain_top(row, kept, rest):
    """The rule, written down for one label."""
    order = np.argsort(-row, kind="stable")[:kept]
    values = row[order].astype(np.float16).astype(np.float32)
    if rest == "uniform":
        left = max(0.0, 1.0 - float(values.sum())) / max(1, len(row) - kept)
        found = np.full(len(row), left, np.float32)
        found[order] = values
    elif rest == "renormalised":
        found = np.zeros(len(row), np.float32)
        found[order] = values / values.sum()
    else:
        found = np.full(len(row), -np.inf, np.float32)
        found[order] = values
    return order, found


@pytest.mark.parametrize("rest", ["uniform", "renormalised", "absent"])
@pytest.mark.parametrize("classes,kept", [(10, 3), (10, 10), (2, 1), (300, 5)])
def test_the_largest_are_kept_and_the_rest_follows_its_rule(rest, classes, kept):
    labels = logits(30, classes)
    labels[0] = 1.0  # equal values: the first classes
    labels = labels if rest == "absent" else softmax(labels)
    arrays, back = round_trip(labels, TopK(classes, kept, rest))
    assert arrays["indices"].dtype == (np.uint8 if classes <= 256 else np.uint16)
    for row, indices, found in zip(labels, arrays["indices"], back):
        order, wanted = plain_top(row, kept, rest)
        np.testing.assert_array_equal(indices, order)
        np.testing.assert_allclose(found, wanted, rtol=2e-6)
    if rest == "absent":
        return
    assert (back >= 0).all()
    np.testing.assert_allclose(back.sum(axis=1), 1.0, atol=kept * HALF)
    least = np.sort(labels, axis=1)[:, -kept][:, None]
    gone = 1 - np.sort(labels, axis=1)[:, -kept:].sum(axis=1, keepdims=True)
    is_kept = np.zeros(labels.shape, bool)
    np.put_along_axis(is_kept, arrays["indices"].astype(int), True, axis=1)
    error = np.abs(back - labels)
    more = gone + 2.0**-10 if rest == "renormalised" else 0
    assert (error <= np.where(is_kept, HALF * labels + 2.0**-25 + more, least + 2.0**-10)).all()


def test_a_rest_that_rounding_made_negative_is_zero():
    labels = np.float32([[0.3334, 0.3334, 0.0, 0.0]])
    labels[0, 2] = 1 - labels[0, :2].sum()
    kept = labels.astype(np.float16).astype(np.float64)
    assert kept.sum() > 1
    assert round_trip(labels, TopK(4, 3))[1][0, 3] == 0


def test_a_softmax_over_the_kept_logits_is_mr_k():
    labels, codec = logits(), TopK(10, 4, "absent")
    _, back = round_trip(labels, codec)
    shares = np.asarray(jax.nn.softmax(back / 20.0))
    for row, share in zip(labels, shares):
        order = np.argsort(-row)[:4]
        kept = np.exp(row[order].astype(np.float16).astype(np.float64) / 20.0)
        np.testing.assert_allclose(share[order], kept / kept.sum(), rtol=1e-5)
        assert np.delete(share, order).max() == 0
    assert not codec.dense and codec.kind == "logits"


def plain_quantised(row, low, high, bits):
    """(codes as NumPy packs them, decoded)."""
    level = (np.float32(high) - np.float32(low)) / np.float32(2**bits - 1)
    codes = np.clip(np.round((row - np.float32(low)) / level), 0, 2**bits - 1).astype(int)
    flags = np.array([[code >> b & 1 for b in range(bits)] for code in codes], np.uint8)
    return np.packbits(flags.ravel(), bitorder="little"), low + level * codes


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("span", ["row", "store"])
def test_levels_and_their_packing_are_numpys(bits, span):
    labels, codec = logits(20, 7), Quantised(7, bits, span)
    arrays, back = round_trip(labels, codec)
    ends = labels.min(axis=1), labels.max(axis=1)
    if span == "store":
        ends = [np.broadcast_to(end, 20) for end in (labels.min(), labels.max())]
    kept = np.float16 if span == "row" else np.float32
    for row, low, high, codes, found in zip(labels, *ends, arrays["codes"], back):
        wanted, decoded = plain_quantised(row, low.astype(kept), high.astype(kept), bits)
        np.testing.assert_array_equal(codes, wanted)
        np.testing.assert_allclose(found, decoded, atol=1e-5)
        bound = (high - low) / (2 * (2**bits - 1)) + 1e-5
        bound += HALF * np.abs(row).max() if span == "row" else 0
        assert (np.abs(found - row) <= bound).all()


def test_a_flat_label_is_quantised_to_itself():
    labels = np.full((2, 5), 3.0, np.float32)
    for span in ("row", "store"):
        np.testing.assert_array_equal(round_trip(labels, Quantised(5, 4, span))[1], labels)


@pytest.mark.parametrize("rank", [1, 3, 10])
def test_low_rank_is_within_what_eckart_and_young_promise(rank):
    labels = logits(50, 10)
    arrays, back = round_trip(labels, LowRank(10, rank))
    values = np.linalg.svd(labels.astype(np.float64), compute_uv=False)
    size = np.linalg.norm(labels)
    bound = np.sqrt((values[rank:] ** 2).sum()) + HALF * (1 + np.sqrt(rank)) * 1.01 * size
    assert np.linalg.norm(back - labels) <= bound
    left = np.linalg.lstsq(arrays["right"].astype(np.float64).T, labels.T, rcond=None)[0].T
    np.testing.assert_allclose(arrays["left"], left, rtol=2e-3, atol=2e-3)


def test_labels_of_low_rank_come_back():
    rng = np.random.default_rng(0)
    labels = (rng.normal(size=(64, 2)) @ rng.normal(size=(2, 10))).astype(np.float32)
    _, back = round_trip(labels, LowRank(10, 2))
    np.testing.assert_allclose(back, labels, atol=0.01)


def test_shared_parts_do_not_depend_on_how_labels_come():
    labels = logits(60)
    for codec in (Quantised(10, 4, "store"), LowRank(10, 3)):
        whole, parts = codec.fit([labels]), codec.fit(np.split(labels, [7, 33]))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), whole, parts)


@pytest.mark.parametrize("make,words", [
    (lambda: TopK(10, 11), "kept is 11, and labels have 10 classes"),
    (lambda: TopK(10, 0), "kept is 0"), (lambda: TopK(10, 5, "gone"), "rest of a top-k label"),
    (lambda: Quantised(10, 1), "bits is 1"), (lambda: Quantised(10, 9), "bits is 9"),
    (lambda: Quantised(10, 4, "set"), "span"), (lambda: LowRank(10, 11), "rank is 11"),
    (lambda: Full(10, "classes"), "kind of stored labels"), (lambda: Full(1), "classes is 1"),
    (lambda: Full(10, dtype="int8"), "int8")])
def test_what_cannot_be_is_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


@pytest.mark.parametrize("card", [None, {}, {"name": "zip"}, {"name": "top", "classes": 10},
                                  {**codec_card(Full(10)), "more": 1}])
def test_a_file_of_an_unknown_codec_is_refused(card):
    with pytest.raises(SetFileError, match="does not know"):
        codec_from_card(card)
    assert len(CODECS) == 4
