"""Labels of views a second: an epoch of 60,000 images by a ConvNet, beside PyTorch.

Ours is one compiled loop over the batches of an epoch, its part written to the disk, as `relabel`
does; only the last step, the copy of all parts into one file, is left out.
"""

from __future__ import annotations

import pathlib
import tempfile
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import dd_jax as dd
from dd_jax import nets
from dd_jax.data import identity
from dd_jax.labels.store_settings import store_settings
from dd_jax.run.relabel import labeller
from dd_jax.store.arrays import write_arrays
from dd_jax.store.view_store import plan_of
from dd_jax.train.teachers import real_images
from experiments.benchmarks.timing import Options, Rival, race


def relabelling(options: Options) -> None:
    """An epoch of views with their five largest probabilities."""
    data, width = dd.data.load("fashion_mnist").train, options.width or 32
    settings = store_settings("top5", mixing="cutmix@1.0", kept="draws", epochs=1, batch_size=256)
    plan, network = plan_of(settings, data), nets.convnet(data.spec, width=width, norm="batch")
    program = labeller(plan, settings, [network], lambda arrays: real_images(*arrays))
    variables, key = [network.init(jax.random.key(0))], jax.random.key(1)
    arrays, numbers = (data, identity(data.spec.shape)), jnp.arange(plan.rule.steps)
    folder = pathlib.Path(tempfile.mkdtemp())

    def ours():
        found, _ = jax.tree.map(np.asarray, program(variables, arrays, key, numbers))
        return write_arrays(folder / "part.safetensors", found, {}).stat().st_size

    def theirs(show):
        from experiments.benchmarks import torch_relabel

        teacher = torch_relabel.network(width)
        return torch_relabel.relabelled(np.asarray(data.images), teacher,
                                        getattr(torch_relabel, show))

    views = plan.rule.steps * plan.rule.size
    race("relabelling", {
        "torch": Rival(partial(theirs, "one_by_one"), jit=False),
        "torch_batched": Rival(partial(theirs, "batched"), jit=False),
        "ours": Rival(ours, jit=False)}, options, width=width, views=views,
        derived=lambda medians: {"views_per_second": {k: round(views / v)
                                                      for k, v in medians.items()}})
