"""What methods take from a data set's name, as on the cards: constants, flips, IDC's settings."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from dd_jax import data, methods
from dd_jax.methods import METHODS, idc
from dd_jax.methods.families.budgets import evaluation_steps
from dd_jax.methods.frame import Site
from dd_jax.objectives import gradient_matching

GREY, COLOUR = (28, 28, 1), (32, 32, 3)
SHAPES = {"mnist": GREY, "fashion_mnist": GREY, "svhn": COLOUR, "svhn_cropped": COLOUR,
          "cifar10": COLOUR, "cifar100": COLOUR, "tiny_imagenet": (64, 64, 3)}
SVHN = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)
CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
CIFAR100 = (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# As in the code of DC; those in the second table are of DCC, CAFE, IDC, IDM and NCFM.
CONSTANTS = {"mnist": ((0.1307,), (0.3081,)), "fashion_mnist": ((0.2861,), (0.3530,)),
             "svhn": SVHN, "svhn_cropped": SVHN, "cifar10": CIFAR10, "cifar100": CIFAR100,
             "tiny_imagenet": IMAGENET}
OWN = ("dc", "dsa", "fyi", "dm", "wmdd")
BORROWING = ("dcc", "dsac", "cafe", "idc", "dream", "idm", "m3d", "ncfm")


def called(name, count=100, shape=None, classes=2):
    """Images of one level each; nothing is looked at but name and shape."""
    shape = shape or SHAPES[name]
    levels = np.random.default_rng(0).integers(0, 256, (count, 1, 1, 1), np.uint8)
    return data.from_arrays(np.broadcast_to(levels, (count, *shape)), np.arange(count) % classes,
                            name=name)


def site(name, real, protocol="official", ipc=1, **changes):
    return Site(methods.preset(name, protocol, ipc, **changes), real, None)


@pytest.mark.parametrize("name", SHAPES)
def test_pixels_are_standardised_by_the_numbers_of_the_authors_codes(name):
    real = called(name)
    for method in (*OWN, *BORROWING):
        wanted = CONSTANTS["cifar10" if name == "cifar100" and method in BORROWING else name]
        settings = methods.preset(method)
        found = data.normalisers(settings.normaliser, real)
        np.testing.assert_allclose(found.mean, wanted[0], rtol=1e-6)
        np.testing.assert_allclose(found.std, wanted[1], rtol=1e-6)
        for protocol in METHODS[method].settings.presets:
            assert methods.preset(method, protocol, 10).normaliser == settings.normaliser
    recipe = methods.recipe("dsa", real)
    np.testing.assert_allclose(recipe.normaliser.std, CONSTANTS[name][1], rtol=1e-6)


@pytest.mark.parametrize("protocol", ["official", "paper", "cpu"])
def test_datadam_whitens_cifar_as_its_authors_ask(protocol):
    for name in ("cifar10", "cifar100"):
        plan = methods.plan("datadam", called(name), protocol=protocol)
        assert plan.needs["normaliser"].settings == {"name": "zca_absolute"}
    for name in ("svhn", "fashion_mnist"):
        plan = methods.plan("datadam", called(name), protocol=protocol)
        assert not plan.needs and plan.build({}).normaliser.kind == "standardise"
    std = methods.recipe("datadam", called("svhn"), protocol=protocol).normaliser.std
    np.testing.assert_allclose(std, SVHN[1], rtol=1e-6)


FLIPPED = {"fashion_mnist", "cifar10", "cifar100", "tiny_imagenet"}


@pytest.mark.parametrize("name", SHAPES)
def test_digits_are_not_mirrored(name):
    real = called(name)
    tail = "" if name in FLIPPED else "_digits"
    for method, views in (("dsa", "dsa"), ("dsac", "dsa"), ("fyi", "dsa"), ("dm", "dsa"),
                          ("datadam", "dsa"), ("idm", "dsa"), ("idc", "idc"), ("dream", "idc"),
                          ("m3d", "idc"), ("ncfm", "idc")):
        at = site(method, real)
        assert at.views() == views + tail, method
        assert at.protocol("test").views.augmentation == views + tail
        assert site(method, real, flips=True).views() == views
        assert site(method, real, flips=False).views() == views + "_digits"
    assert site("dc", real).views() == site("cafe", real).views() == "none"
    assert site("idc", real).views("idc_matching") == "idc_matching"


# Name, shape, and of IDC the rate at ten images per class, distance and training images.
RATES = [
    ("mnist", GREY, 1e-4, "conv_absolute", 500),
    ("fashion_mnist", GREY, 1e-4 * (28 / 32) ** 2, "conv_absolute", 500),
    ("svhn_cropped", COLOUR, 5e-3, "conv_squared", 500),
    ("cifar10", COLOUR, 5e-3, "conv_squared", 2000),
    ("cifar100", COLOUR, 5e-3, "conv_squared", 2000),
    ("tiny_imagenet", (64, 64, 3), 5e-3 * 4, "conv_squared", 1000),
    ("mine", (16, 16, 1), 1e-4 / 4, "conv_absolute", 500),
    ("mine", (16, 16, 3), 5e-3 / 4, "conv_squared", 2000),
]


@pytest.mark.parametrize("method", ["idc", "dream"])
@pytest.mark.parametrize("name,shape,rate,distance,train", RATES)
def test_rate_distance_and_training_images_of_idc(name, shape, rate, distance, train, method):
    real = called(name, shape=shape)
    for ipc in (1, 10):
        found = site(method, real, ipc=ipc).settings.usual(site(method, real, ipc=ipc))
        np.testing.assert_allclose(found["learning_rate"], rate * ipc / 10, rtol=1e-12)
        assert (found["distance"], found["train_images"]) == (distance, train)
        plain = name != "mnist"  # with stored images that show several
        assert (found["mix"], found["matching"]) == (
            (0.5, "idc_matching") if plain else (0.0, "idc_training"))
    alone = site(method, real, factor=1)
    assert alone.settings.usual(alone)["mix"] == 0.5
    given = site(method, real, learning_rate=0.25, mix=0.0)
    assert given.settings.usual(given)["learning_rate"] == 0.25
    assert given.settings.usual(given)["mix"] == 0.0


@pytest.mark.parametrize("factor,mix,matching", [(2, 0.0, "color_crop"), (1, 0.5, "with cutout")])
def test_the_recipe_of_idc_for_mnist_is_made_of_these(factor, mix, matching, monkeypatch):
    asked = {}

    def recorded(network, pool, **options):
        asked.update(options)
        return gradient_matching(network, pool, **options)

    monkeypatch.setattr(idc, "gradient_matching", recorded)
    recipe = methods.recipe("idc", called("mnist", count=600), ipc=10, factor=factor)
    assert recipe.evaluation.views.cutmix == mix
    assert recipe.evaluation.views.augmentation == "idc_digits"
    assert (asked["train_rows"], asked["distance"]) == (500, "conv_absolute")
    drawn = asked["augmentation"].draw(jax.random.key(0), 1)
    assert len(drawn) == {"color_crop": 2, "with cutout": 3}[matching]


MATCHING = (*OWN, *BORROWING, "datadam")


@pytest.mark.parametrize("method", MATCHING)
def test_on_a_cpu_all_sets_are_tested_for_the_same_steps(method):
    real = called("fashion_mnist", classes=10)
    for ipc, budget in ((1, 1000), (10, 1000), (50, 2000)):
        assert evaluation_steps(ipc) == budget
        for batch_size in (64, 256):
            at = site(method, real, "cpu", ipc)
            shown = 10 * ipc * getattr(at.settings, "factor", 1) ** 2
            each = -(-shown // batch_size)
            steps = each * at.protocol("test", batch_size=batch_size).plan.epochs
            assert budget <= steps < budget + each, (ipc, batch_size)


def test_the_length_of_a_test_is_what_was_asked_for():
    real = called("fashion_mnist", count=500, classes=10)

    def epochs(protocol="cpu", **changes):
        return site("dm", real, protocol, 50, **changes).protocol("dc").plan.epochs

    assert epochs() == 1000  # of two steps each
    assert epochs(evaluation_epochs=7) == 7
    assert epochs(evaluation_steps=7) == 4
    assert epochs("official") == 1001
    assert epochs("official", evaluation_steps=31) == 16
    assert methods.recipe("dm", real, protocol="cpu", ipc=50).evaluation.plan.epochs == 1000
    assert methods.recipe("cafe", real, protocol="cpu", ipc=1).evaluation.plan.epochs == 1000
