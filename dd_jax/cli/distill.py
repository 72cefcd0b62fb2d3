"""`python -m dd_jax distill METHOD`: distil, save, evaluate, show."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from dd_jax import methods
from dd_jax.backend import as_key
from dd_jax.cli.options import Command, Run, method_command
from dd_jax.cli.own_data import load_data, where_from
from dd_jax.cli.tables import print_results
from dd_jax.distill import Plan, Recipe, distill, flipped, progressive, representative
from dd_jax.distill.plan import complete, store_beside
from dd_jax.distill.run import run_options
from dd_jax.errors import DDJaxError, printable, require_whole
from dd_jax.evaluate.checks import check_seeds
from dd_jax.run.lock import prepare_folder
from dd_jax.run.workdir import seconds_spent
from dd_jax.store import DistilledSet
from dd_jax.store.artefacts import ArtefactStore
from dd_jax.types import RealData, Split


def run(words: Sequence[str]) -> int:
    """Parses the words after `distill` and does it; returns the exit code."""
    parsed = method_command("distill", words)
    return 0 if parsed is None else _distill(*parsed, words)


def _noted(recipe: Recipe, notes: dict[str, Any]) -> Recipe:
    return dataclasses.replace(recipe, settings={**recipe.settings, **notes})


def _varied(name: str, plan: Plan, options: Run, data: RealData) -> tuple[Plan, str]:
    """The plan with the combinators that were asked for, and what to call it."""
    if options.flipped:
        plan, name = plan.then(flipped), f"{name}_flipped"
    if options.representative is not None:
        change = functools.partial(representative, data=data,
                                   candidates=options.representative or None)
        plan, name = plan.then(change), f"{name}_representative"
    return plan, name if options.stages in (1, plan.stages) else f"{name}_progressive"


def _distill(method, command: Command, words: Sequence[str]) -> int:
    from dd_jax.report.result import check_place, write_result

    options, settings = command.run, command.settings
    require_whole("stages", options.stages, example=5)
    if options.representative is not None:
        require_whole("representative", options.representative, least=0, example=256)
    check_seeds(options.seeds)
    as_key(options.seed)
    run_options(log_every=options.log_every, save_seconds=options.save_seconds,
                save_every=options.save_every)
    if options.json is not None:
        check_place(options.json)
    data = load_data(options)
    plan = methods.plan_with(method, settings, data, memory=options.memory)
    if where_from(options):
        plan = plan.then(functools.partial(_noted, notes=where_from(options)))
    plan, variant = _varied(method.name, plan, options, data.train)
    ipc = settings.images_per_class(data.train) * options.stages
    ipc = int(ipc) if ipc == int(ipc) else ipc  # 1, not 1.0, in names and tables
    name = f"{data.train.spec.name}_{variant}_ipc{ipc}_{options.protocol}"
    folder = options.workdir or pathlib.Path("runs") / name
    store = store_beside(options.artefacts, folder)
    if options.evaluate:
        prepare_folder(store.folder)  # for what the set is compared with
    check_place(folder / "result.json")
    print(f"{variant} on {printable(data.train.spec.name)}, protocol {options.protocol}, "
          f"in {folder}", file=sys.stderr)
    if plan.told:
        print(plan.told, file=sys.stderr)
    start = time.perf_counter()
    distilled, spent = _run(plan, options, data, folder, store)
    spent = spent or time.perf_counter() - start
    _draw(folder, distilled)
    if not options.evaluate:
        print(f"saved {folder / 'set.safetensors'} and grid.png")
        return 0
    recipe = complete(plan, data.train, artefacts=store)
    cell = (data.train.spec.name, ipc)
    published = method.published.get(cell) if variant == method.name else None
    told = dict(
        method=variant, data=data.train.spec.name, ipc=ipc, protocol=options.protocol,
        published=published and published._asdict(), distill_seconds=round(spent, 1),
        steps=distilled.recipe.get("ended_after", recipe.steps * options.stages),
        command="python -m dd_jax distill " + shlex.join(words))
    results = []  # the last of them is printed, also where it cannot be kept or a later test fails
    try:
        for figures in _figures(distilled, recipe, data, options, store=store,
                                known=method.published_read_out.get(cell)):
            results = [_result(told | figures, distilled, recipe, options)]
            for place in (folder / "result.json", *([options.json] if options.json else [])):
                write_result(place, results[0])
    finally:
        if results:
            print_results(results)
    print(f"set, picture, metrics and result are in {folder}")
    return 0


def _draw(folder: pathlib.Path, distilled: DistilledSet) -> None:
    """Pictures of the set; a finished run does not end for want of one."""
    from dd_jax.report import is_poster, save_grid, save_poster

    try:
        save_grid(folder / "grid.png", distilled)
        if is_poster(distilled):
            save_poster(folder / "poster.png", distilled)
    except DDJaxError as error:
        print(f"warning: there is no picture: {error}", file=sys.stderr)


def _run(
    plan: Plan, options: Run, data: Split, folder: pathlib.Path, store: ArtefactStore
) -> tuple[DistilledSet, float]:
    """The distilled set, and the seconds that all continuations of the run have taken."""
    how: dict[str, Any] = dict(
        key=options.seed, workdir=folder, artefacts=store, log_every=options.log_every,
        save_seconds=options.save_seconds, save_every=options.save_every)
    if options.stages == 1:
        distilled, folders = distill(plan, data, **how), [folder]
    else:
        distilled = progressive(plan, data, stages=options.stages, **how)
        folders = sorted(folder.glob("stage_*"))
    return distilled, sum(max(seconds_spent(f), 0.0) for f in folders)


def _figures(
    distilled: DistilledSet, recipe: Recipe, data: Split, options: Run, *, store: ArtefactStore,
    known: Any,
) -> Iterator[dict[str, Any]]:
    """The figures of the set, then all of them once more with each test that takes long."""
    from dd_jax import evaluate, kernels
    from dd_jax.cli.figures import network_figures, read_out_figures, transfer_figures

    if recipe.labels.kind == "representations":
        if options.full:
            print("warning: sets of representations have no full-data baseline", file=sys.stderr)
        budget = evaluate.BUDGETS[options.protocol]
        if options.seeds:
            budget = dataclasses.replace(budget, seeds=options.seeds)
        yield transfer_figures(distilled, recipe, data, seed=options.seed, budget=budget)
        return
    evaluate.check(distilled, data.test, protocol=recipe.evaluation)
    also = recipe.evaluation.read_out if options.read_out else None
    if also is not None:
        kernel = kernels.named(also.kernel, kind=also.kind)
        evaluate.check_read_out(distilled, data.test, kernel)
    figures = network_figures(distilled, recipe, data, seed=options.seed, seeds=options.seeds,
                              full=options.full, store=store)
    yield figures
    if also is not None:
        yield figures | read_out_figures(distilled, data, seed=options.seed, known=known)


def _result(
    told: dict[str, Any], distilled: DistilledSet, recipe: Recipe, options: Run
) -> dict[str, Any]:
    """What is known of a run so far, as a file of results has it."""
    from dd_jax.report.result import build_result

    return build_result(
        bytes=distilled.stored_bytes, seed=options.seed, settings=dict(recipe.settings),
        evaluation=dict(distilled.evaluation), **told)
