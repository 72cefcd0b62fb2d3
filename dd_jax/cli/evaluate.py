"""`python -m dd_jax evaluate FILE`: test a saved set on fresh networks."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import shlex
from collections.abc import Sequence
from typing import Annotated

import tyro

from dd_jax.cli.options import parse
from dd_jax.cli.own_data import data_of_set
from dd_jax.cli.tables import print_table
from dd_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Options of `evaluate`.

    Attributes:
      file: a set that this library saved.
      data: whose test part is used: "embedded", "fashion_mnist", "tfds:NAME" or a path; by
        default the data set that was distilled, found by its name: among the well-known ones, or in
        the folder of DD_JAX_DATA.
      size: of images from class folders of your own, as for `distill`; as the set's by default.
      channels: of such images, 1 or 3; as the set's by default.
      test_share: of data of your own without a test part; that of the distillation by default.
      class_names: of an .npz file or a folder of idx files; those of the set by default.
      networks: comma-separated names, for example convnet,mlp; the set's own by default; "none" for
        regression alone.
      augmentation: instead of the set's own, for example "none" or "dsa".
      epochs: instead of the set's own.
      seeds: networks to train of each architecture; the protocol's number by default.
      seed: of the networks.
      kernel: also predict by regression with this kernel, for example "fc3"; by default with the
        set's own, if it has one; "none" for no regression.
      random: also test random real images of the same budget (made once, an artefact).
      full: also train on the full data (made once, an artefact).
      teacher: what students are told by in the place of the set's labels, on their own views:
        "train" for networks trained on the real images (made once, artefacts), or the names of
        such artefacts, comma-separated; random images are taught so as well.
      supervision: the loss against the teacher, such as kl@4 (the default), by name and
        temperature.
      teacher_network: of a teacher that is trained, by default convnet; several make a committee.
      teacher_width, teacher_depth, teacher_epochs, teacher_seed: of its network and its training.
      teacher_mode: its batch normalisation by "running" statistics (the default) or those of each
        "batch".
      label_store: write the teacher's labels of all views of the test into a file beside the set,
        once, and train on these: full, top5, quant4, rank8, pruned10 or two of them, such as
        top5+pruned10. Random images are taught live.
      strict: refuse a teacher that is below the accuracy of its kind.
      artefacts: folder of what is made once; by default DD_JAX_ARTEFACTS, or "artefacts" beside the
        folder of the set.
      json: also write the figures to this file.
    """

    file: Annotated[pathlib.Path, tyro.conf.Positional]
    data: str | None = None
    size: str | None = None
    channels: int | None = None
    test_share: float | None = None
    class_names: str | None = None
    networks: str | None = None
    augmentation: str | None = None
    epochs: int | None = None
    kernel: str | None = None
    seeds: int | None = None
    seed: int = 1
    random: bool = True
    full: bool = False
    teacher: str | None = None
    supervision: str | None = None
    teacher_network: str | None = None
    teacher_width: int | None = None
    teacher_depth: int | None = None
    teacher_epochs: int | None = None
    teacher_seed: int | None = None
    teacher_mode: str | None = None
    label_store: str | None = None
    strict: bool = False
    artefacts: pathlib.Path | None = None
    json: pathlib.Path | None = None


def _read_out_of(name: str | None, distilled):
    """The kernel regression that was asked for, or the set's own, or None."""
    from dd_jax.evaluate import ReadOut, own_read_out

    if name == "none" or (name is None and "read_out" not in distilled.evaluation):
        return None
    return own_read_out(distilled) if name is None else ReadOut(name)


def _transfer(words: Sequence[str], options: Evaluate, distilled, data, protocols) -> int:
    """Linear probe and fine-tuning of networks pre-trained on a set of representations."""
    from dd_jax import evaluate
    from dd_jax.report.result import percent, write_result

    budget = evaluate.BUDGETS["cpu"]
    if options.seeds:
        budget = dataclasses.replace(budget, seeds=options.seeds)
    rows, results = [], []
    evaluate.check_transfer(data, distilled.spec.shape, protocols)
    cases = [(p, name, synthetic) for p in protocols
             for name, synthetic in (("on the set", distilled.trainable()), ("not at all", None))]
    try:
        for protocol, name, synthetic in cases:
            found = evaluate.evaluate_transfer(
                synthetic, data, normaliser=distilled.normaliser, protocol=protocol, budget=budget,
                key=options.seed,
            )
            rows.append((protocol.network.name, name, percent(found.probe.mean, found.probe.std),
                         percent(found.tuned.mean, found.tuned.std), str(budget.seeds),
                         f"{found.probe.seconds:.0f} s"))
            results.append({"network": protocol.network.name, "pretrained": name,
                            "probe_mean": found.probe.mean, "probe_std": found.probe.std,
                            "tuned_mean": found.tuned.mean, "tuned_std": found.tuned.std,
                            "seconds": round(found.probe.seconds, 1)})
            if options.json:
                write_result(options.json, _described(words, options, distilled, data, results))
    finally:
        if rows:
            print_table(
                ("network", "pre-trained", "linear probe", "fine-tuned", "networks", "time"), rows)
    return 0


def _described(words: Sequence[str], options: Evaluate, distilled, data, results: list) -> dict:
    """What the file of figures says beside them: of which set, how, and on what machine."""
    from dd_jax.report.result import device_name, git_commit
    from dd_jax.versions import versions

    return {"file": options.file.name, "recipe": dict(distilled.recipe), "ipc": distilled.ipc,
            "made_by": dict(distilled.versions), "data": data.test.spec.name, "seed": options.seed,
            "command": "python -m dd_jax evaluate " + shlex.join(words), "device": device_name(),
            "versions": versions(), "git_commit": git_commit(), "results": results}


def run(words: Sequence[str]) -> int:
    """Parses the words after `evaluate` and does it; returns the exit code."""
    from dd_jax import store
    from dd_jax.backend import as_key
    from dd_jax.evaluate.checks import check_seeds
    from dd_jax.report.result import check_place

    options = parse(Evaluate, words, program="python -m dd_jax evaluate")
    check_seeds(options.seeds)
    as_key(options.seed)
    if options.networks is not None:
        _names(options.networks)
    if options.json is not None:
        check_place(options.json)
    distilled = store.load(options.file)
    protocols, by = _protocols(options, distilled), _read_out_of(options.kernel, distilled)
    if not protocols and by is None:
        raise ConfigError("networks is 'none' and there is no kernel: nothing is to be tested",
                          fix="pass --kernel fc3, or name a network")
    data = data_of_set(options, distilled)
    if distilled.label_kind == "representations":
        if options.kernel not in (None, "none") or options.augmentation is not None or options.full:
            raise ConfigError("the set holds representations: --kernel, --augmentation and --full "
                              "have no meaning for it", fix="leave them out")
        if options.teacher is not None:
            raise ConfigError("the set holds representations, and a teacher tells classes",
                              fix="leave out --teacher")
        return _transfer(words, options, distilled, data, protocols)
    return _classify(words, options, distilled, data, protocols, by)


def _protocols(options: Evaluate, distilled) -> list:
    """The set's protocol with what was asked for in its place, on each network."""
    from dd_jax import evaluate

    if options.networks == "none":
        return []
    own = {"augmentation": options.augmentation, "epochs": options.epochs}
    protocol = evaluate.own_protocol(distilled).varied(
        **{k: v for k, v in own.items() if v is not None})
    names = [protocol.network.name] if options.networks is None else _names(options.networks)
    return [evaluate.for_network(protocol, name) for name in names]


def _names(networks: str) -> list[str]:
    """The names in a comma-separated list."""
    from dd_jax.nets import NETWORKS

    names = [name.strip() for name in networks.split(",") if name.strip()]
    if not names:
        known = ", ".join(sorted(NETWORKS))
        raise ConfigError(f"networks is {networks!r}, which names none",
                          fix=f"name some of {known}, or 'none' for regression alone")
    return names


def _classify(words, options: Evaluate, distilled, data, protocols, by) -> int:
    """Tests by all networks and the kernel; what is finished is kept where a later one fails."""
    from dd_jax import evaluate, kernels
    from dd_jax.cli.taught import told_of
    from dd_jax.distill.plan import store_beside
    from dd_jax.report.result import write_result
    from dd_jax.run.lock import prepare_folder

    for each in protocols:
        evaluate.check(distilled, data.test, protocol=each, labels=options.teacher is None)
    if by is not None:
        evaluate.check_read_out(distilled, data.test, kernels.named(by.kernel, kind=by.kind))
    options = dataclasses.replace(
        options, random=options.random and evaluate.has_random(distilled, data.train))
    store = store_beside(options.artefacts, options.file.absolute().parent)
    if protocols and (options.random or options.full or options.teacher):
        prepare_folder(store.folder)
    told = told_of(options, distilled, data, protocols, store)
    tests = [functools.partial(_by_network, options, distilled, data, each, store, told, place)
             for place, each in enumerate(protocols)]
    if by is not None:
        tests.append(functools.partial(_by_kernel, options, distilled, data, by))
    rows, results = [], []
    try:
        for test in tests:
            row, result = test()
            rows.append(row)
            results.append(result)
            if options.json:
                write_result(options.json, _described(words, options, distilled, data, results))
    finally:
        if rows:
            print_table(("network", "accuracy", "random", "all data", "networks", "time"), rows)
    return 0


def _by_network(
    options: Evaluate, distilled, data, protocol, store, told, place: int
) -> tuple[tuple, dict]:
    """(row of the table, figures) of networks trained on the set and on what it is compared with.

    Random images and all data are artefacts, shared with the runs beside the set's. A teacher tells
    of the set, by a label store where there is one, and live of random images; all data have their
    own labels.
    """
    from dd_jax import evaluate
    from dd_jax.cli.figures import later_seed
    from dd_jax.evaluate.baselines import full_baseline, random_baseline
    from dd_jax.report.result import percent
    from dd_jax.synthetic import Labels

    replayed, stored = told.replays[place] if told.replays else (None, None)
    tested = evaluate.evaluate_progressive(
        distilled, data.test, protocol=protocol, key=options.seed,
        seeds=options.seeds, supervision=replayed or told.supervision)
    common = dict(protocol=protocol, normaliser=distilled.normaliser,
                  labels=Labels(distilled.label_kind, distilled.label_scale))
    random = full = None
    if options.random:
        random = store.get(random_baseline(
            data, ipc=evaluate.budget(distilled), seed=options.seed, seeds=options.seeds,
            shown=distilled.synthetic.images.shape[0], supervision=told.supervision,
            told=told.notes, **common), data.train)
    if options.full:
        baseline = full_baseline(data, seed=later_seed(options.seed, 1), **common)
        full = store.get(baseline, data.train)
    row = (protocol.network.name, percent(tested.mean, tested.std),
           percent(random.mean, random.std) if random else "-", percent(full and full.mean),
           str(len(tested.accuracies)), f"{tested.seconds:.0f} s")
    return row, {
        "network": protocol.network.name, "accuracy_mean": tested.mean,
        "accuracy_std": tested.std, "accuracies": tested.accuracies.tolist(),
        "seconds": round(tested.seconds, 1), "random_mean": random and random.mean,
        "random_std": random and random.std, "full_mean": full and full.mean,
        "protocol": protocol.plain(), **({"told": dict(told.notes)} if told.notes else {}),
        **({"label_store": dict(stored)} if stored else {}),
    }


def _by_kernel(options: Evaluate, distilled, data, by) -> tuple[tuple, dict]:
    """(row of the table, figures) of kernel regression."""
    from dd_jax import evaluate
    from dd_jax.report.result import percent

    read, random = evaluate.read_out(distilled, data.test, by=by), None
    if options.random:
        random = evaluate.read_out_random(distilled, data, key=options.seed, by=by)
    row = (f"kernel {by.kernel}", percent(read.mean),
           percent(random.mean, random.std) if random else "-", "-", "-", f"{read.seconds:.0f} s")
    return row, {
        "kernel": dataclasses.asdict(by), "accuracy_mean": read.mean,
        "seconds": round(read.seconds, 1), "random_mean": random and random.mean,
        "random_std": random and random.std,
    }
