"""Writes a store of views and their labels, part by part, and goes on where it was stopped."""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from dd_jax.backend import as_key, own_dtypes
from dd_jax.data import Normaliser
from dd_jax.errors import CheckpointError, ConfigError, NonFiniteError, require_kind, require_whole
from dd_jax.labels import committee
from dd_jax.labels.draws import drawn_in, order_of, pruned_batches, show, to_arrays
from dd_jax.labels.live import look
from dd_jax.labels.store_settings import StorePlan, StoreSettings
from dd_jax.run.lock import RunLock, prepare_folder
from dd_jax.run.progress import progress
from dd_jax.run.stop import StopSignals
from dd_jax.store.arrays import read_arrays, read_card, write_arrays
from dd_jax.store.atomic import PathLike
from dd_jax.store.envelope import header_hash
from dd_jax.store.record import DistilledSet
from dd_jax.store.view_file import ViewStore, open_views, write_views
from dd_jax.store.view_store import Teacher, describe_views, plan_of, require_same
from dd_jax.train.fit import Take, rows_of
from dd_jax.train.teachers import real_images
from dd_jax.types import Network, PyTree, RealData

_MOST = 2**24  # numbers of labels of one part
_RAW = "raw"  # the name of labels that are coded when all of them are there


def relabel(
    path: PathLike,
    source: DistilledSet | RealData,
    teachers: Teacher | Sequence[Teacher],
    settings: StoreSettings,
    *,
    key: int | jax.Array,
    normaliser: Normaliser | None = None,
    together: int | None = None,
    show_progress: bool | None = None,
) -> ViewStore:
    """Labels of views of a set, by one or several teachers, as a file that `fit` replays.

    A part is one compiled loop over some batches: views are drawn, shown, labelled and coded on the
    device, and only what is kept comes back. Parts lie beside the file until all are there. The
    same call goes on after the last whole part of a store that was stopped or killed, to the same
    bits, and returns the store if it is there.

    Args:
      path: of the file.
      source: the set; of real data this is the store of Dataset Reinforcement.
      teachers: (network, variables), or a list of such pairs, whose mean is stored, see `averaged`.
      settings: see `labels.store_settings.store_settings`.
      key: an integer seed or a typed PRNG key, of the views.
      normaliser: of real data, from stored images to model space; a distilled set has its own.
      together: batches of a part, by default those of an epoch.
      show_progress: by default when there is somebody to see it.

    Returns:
      The `ViewStore`.

    Raises:
      ConfigError: settings that do not fit the set, teachers of other classes or shape, real data
        without a normaliser.
      SetFileError: another store is at `path`, or it cannot be written.
      CheckpointError: parts of another store lie there, or another process writes it.
      NonFiniteError: labels that are not finite as they are stored.
      RunStopped: SIGINT or SIGTERM came; the parts so far are kept.

    Example:
      >>> import tempfile
      >>> from dd_jax import data, nets
      >>> from dd_jax.labels.store_settings import store_settings
      >>> real = data.from_arrays(np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)),
      ...                         np.arange(8) % 2)
      >>> network = nets.mlp(real.spec, width=4)
      >>> teacher = network, network.init(jax.random.key(0))
      >>> made = relabel(tempfile.mkdtemp() + "/views.safetensors", real, teacher,
      ...                store_settings("full", epochs=3), key=0, normaliser=data.standardise(real))
      >>> made.bytes
      96
    """
    require_kind("path", path, (str, os.PathLike), expected="the path of a file",
                 fix="pass 'NAME.views.safetensors'")
    key, path = as_key(key), pathlib.Path(path)
    teachers = _teachers(teachers)
    require_kind("settings", settings, StoreSettings, expected="StoreSettings",
                 fix="call labels.store_settings.store_settings('top5')")
    with own_dtypes():
        arrays, take_of = _source(source, normaliser)
        plan = plan_of(settings, source)
        _check_teachers(teachers, plan)
        description = describe_views(plan, settings, source, teachers, key)
        if path.exists():
            found = open_views(path)
            require_same(found, description)
            return found
        numbers = np.asarray(pruned_batches(plan.rule, key))
        if together is None:
            together = max(1, _MOST // (plan.rule.size * plan.codec.classes))
            together = min(plan.rule.steps, together)
        require_whole("together", together, example=plan.rule.steps)
        program = labeller(plan, settings, [network for network, _ in teachers], take_of)
        variables = [variables for _, variables in teachers]
        folder = prepare_folder(path.with_name(f".{path.name}.parts"))
        with RunLock(folder):
            _write_parts(folder, numbers, min(together, len(numbers)), header_hash(description),
                         functools.partial(program, variables, arrays, key), show_progress)
            _assemble(path, folder, plan, description, -(-len(numbers) // together))
        shutil.rmtree(folder, ignore_errors=True)
        return open_views(path)


def labeller(
    plan: StorePlan, settings: StoreSettings, networks: Sequence[Network],
    take_of: Callable[[PyTree], Take],
) -> Callable:
    """The compiled loop of a part: views are drawn, shown, labelled and coded.

    Args:
      plan, settings: of the store.
      networks: of the teachers.
      take_of: (arrays) -> the `take` of the set's images in model space.

    Returns:
      (list of variables, arrays, key, batches [n] int32) -> (name -> [n, ...], finite [n] bool).
    """
    rule, codec = plan.rule, plan.codec

    def labels_of(variables, images):
        mean = averaged([look(network, own, images, mode=settings.statistics)
                         for network, own in zip(networks, variables)], settings)
        return mean if codec.kind == "logits" else jax.nn.softmax(mean / settings.temperature)

    @jax.jit
    def program(variables, arrays, key, batches):
        plain = take_of(arrays)

        def step(known, batch):
            epoch = batch // rule.steps
            # A permutation of a large set takes as long as many a teacher: one for an epoch.
            order = jax.lax.cond(epoch == known[0], lambda: known[1],
                                 lambda: order_of(rule, key, epoch))
            drawn = drawn_in(rule, key, order, epoch, batch % rule.steps)
            images, _ = show(rule, drawn, plain(drawn.rows)[0], None)
            labels = labels_of(variables, images)
            coded = {_RAW: labels} if codec.shared() else codec.encode(labels, {})
            draws = to_arrays(rule, drawn) if rule.kept == "draws" else {}
            named = {f"labels.{name}": x for name, x in coded.items()}
            return (epoch, order), ({**named, **draws}, _finite(coded))

        start = jnp.int32(-1), jnp.zeros((rule.images,), jnp.int32)
        return jax.lax.scan(step, start, batches)[1]

    return program


def averaged(logits: Sequence[jax.Array], settings: StoreSettings) -> jax.Array:
    """One label of several teachers' [B, K] each, as logits: mean z, or T log(mean softmax(z / T)).

    One teacher's logits are left as they are.

    Example:
      >>> two = [jnp.log(jnp.array([[0.5, 0.5]])), jnp.log(jnp.array([[0.9, 0.1]]))]
      >>> jnp.exp(averaged(two, StoreSettings())).round(2).tolist()
      [[0.69..., 0.29...]]
    """
    if len(logits) == 1:
        return logits[0]
    same = jnp.full((len(logits),), 1.0 / len(logits), jnp.float32)
    return committee.averaged(jnp.stack(logits), same, settings.average, settings.temperature)


def _write_parts(
    folder: pathlib.Path, numbers: np.ndarray, together: int, store: str, program: Callable,
    show_progress: bool | None,
) -> None:
    """Computes and writes the parts that are not there."""
    parts = -(-len(numbers) // together)
    card = {"store": store, "together": together}
    done = sum(_is_there(_part(folder, i), card) for i in range(parts))
    bar = progress(parts, start=done, enabled=show_progress, unit="part", description="relabelling")
    with bar as shown, StopSignals("stopping after this part") as stop:
        for i in range(parts):
            if _part(folder, i).exists():
                continue
            mine = numbers[i * together:(i + 1) * together]
            # A last part that is not full repeats a batch: another size would be compiled.
            padded = np.concatenate([mine, np.repeat(mine[-1:], together - len(mine))])
            arrays, finite = jax.tree.map(np.asarray, program(jnp.asarray(padded)))
            if not finite[: len(mine)].all():
                raise NonFiniteError(
                    f"labels of batch {int(mine[int(np.argmin(finite))])} are not finite as they "
                    "are stored", fix="look at the teacher, or store float32")
            write_arrays(_part(folder, i), {n: x[: len(mine)] for n, x in arrays.items()}, card)
            done += 1
            shown.update(done)
            if done < parts:
                stop.check(f"after {done} of {parts} parts of a label store, which are kept")


def _assemble(
    path: pathlib.Path, folder: pathlib.Path, plan: StorePlan, description: dict[str, Any],
    parts: int,
) -> None:
    """One file of all parts; labels that share something are coded here."""
    codec = plan.codec
    if not codec.shared():
        write_views(path, plan.shapes, (read_arrays(_part(folder, i)) for i in range(parts)), {},
                    description)
        return

    def raw() -> Iterator[np.ndarray]:
        for i in range(parts):
            labels = read_arrays(_part(folder, i))[f"labels.{_RAW}"]
            yield labels.reshape(-1, codec.classes)

    shared = codec.fit(raw())
    encode = jax.jit(codec.encode)

    def coded() -> Iterator[dict[str, np.ndarray]]:
        for i in range(parts):
            arrays = read_arrays(_part(folder, i))
            rows = jax.tree.map(np.asarray, encode(arrays.pop(f"labels.{_RAW}"), shared))
            if not bool(_finite(rows)):
                raise NonFiniteError(f"labels of part {i} are not finite as they are stored",
                                     fix="look at the teacher, or store full labels in float32")
            yield {**arrays, **{f"labels.{name}": x for name, x in rows.items()}}

    write_views(path, plan.shapes, coded(), shared, description)


def _part(folder: pathlib.Path, index: int) -> pathlib.Path:
    return folder / f"part_{index:06d}.safetensors"


def _is_there(path: pathlib.Path, card: dict[str, Any]) -> bool:
    if not path.exists():
        return False
    if read_card(path) != card:
        raise CheckpointError(f"{path} is a part of another store, or was cut otherwise",
                              fix=f"delete the folder {path.parent}")
    return True


def _finite(arrays: dict[str, jax.Array]) -> jax.Array:
    """[] bool: whether every number of floats is finite."""
    good = [jnp.all(jnp.isfinite(x)) for x in arrays.values()
            if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.bool_(True), *good]))


def _source(
    source: DistilledSet | RealData, normaliser: Normaliser | None
) -> tuple[PyTree, Callable[[PyTree], Take]]:
    """(arrays, arrays -> the `take` of the set's images in model space)."""
    if isinstance(source, RealData):
        if normaliser is None:
            raise ConfigError("real data has no normaliser of its own",
                              fix="pass normaliser=data.standardise(real)")
        if isinstance(source.images, np.ndarray):
            return (), lambda arrays: real_images(source, normaliser)
        return (source, normaliser), lambda arrays: real_images(*arrays)
    require_kind("source", source, DistilledSet, expected="a DistilledSet or RealData",
                 fix="pass the set itself")
    images = source.trainable().images
    return images, lambda images: rows_of(images, jnp.zeros((images.shape[0], 1)))


def _teachers(teachers: Teacher | Sequence[Teacher]) -> list[Teacher]:
    """A list of (network, variables)."""
    alone = isinstance(teachers, tuple) and len(teachers) == 2 and hasattr(teachers[0], "apply")
    found = [teachers] if alone else list(teachers)
    if not found or not all(isinstance(t, tuple) and len(t) == 2 and hasattr(t[0], "apply")
                            for t in found):
        raise ConfigError("teachers are not pairs (network, variables)",
                          fix="pass (network, variables), or a list of such pairs")
    return found


def _check_teachers(teachers: Sequence[Teacher], plan: StorePlan) -> None:
    """Refuses a teacher that cannot look at the images, or has other classes."""
    shape, classes = plan.rule.shape, plan.codec.classes
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    for network, variables in teachers:
        try:
            out = jax.eval_shape(lambda v, x, n=network: n.apply(v, x).logits, variables, images)
        except (TypeError, ValueError, KeyError, RuntimeError, FlaxError) as error:
            raise ConfigError(f"the teacher {network.name!r} cannot look at images of shape "
                              f"{shape} with its variables: {str(error)[:200]}",
                              fix="pass variables of this network, for images of this shape"
                              ) from error
        if out.shape != (2, classes):
            raise ConfigError(f"the teacher {network.name!r} has {out.shape[1]} classes, the set "
                              f"{classes}", fix="pass a teacher of the same data")
