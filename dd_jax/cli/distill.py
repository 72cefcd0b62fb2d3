"""`python -m dd_jax distill METHOD`: distil, save, evaluate, show."""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence

from dd_jax import methods
from dd_jax.cli.options import Command, Run, load_data, method_command
from dd_jax.cli.tables import print_results
from dd_jax.distill import Recipe, distill, flipped, progressive, representative
from dd_jax.errors import ConfigError
from dd_jax.run.workdir import seconds_spent
from dd_jax.types import RealData


def run(words: Sequence[str]) -> int:
    """Parses the words after `distill` and does it; returns the exit code."""
    parsed = method_command("distill", words, methods.METHODS)
    return 0 if parsed is None else _distill(*parsed, words)


def _varied(recipe: Recipe, options: Run, data: RealData) -> tuple[Recipe, str]:
    """The recipe with the combinators that were asked for, and what to call it."""
    name = recipe.method
    if options.flipped:
        recipe, name = flipped(recipe), f"{name}_flipped"
    if options.representative is not None:
        recipe = representative(recipe, data, candidates=options.representative or None)
        name = f"{name}_representative"
    if options.stages != 1:
        name = f"{name}_progressive"
    return recipe, name


def _distill(method, command: Command, words: Sequence[str]) -> int:
    from dd_jax import evaluate
    from dd_jax.cli.figures import network_figures, read_out_figures, transfer_figures
    from dd_jax.report import is_poster, save_grid, save_poster
    from dd_jax.report.result import build_result, write_result

    options, config = command.run, command.config
    if options.seeds is not None and options.seeds < 1:
        raise ConfigError(f"seeds is {options.seeds}, expected at least 1", fix="pass --seeds 5")
    data = load_data(options.data)
    recipe, variant = _varied(method.recipe(config, data.train), options, data.train)
    ipc = config.ipc * options.stages
    ipc = int(ipc) if ipc == int(ipc) else ipc  # 1, not 1.0, in names and tables
    name = f"{data.train.spec.name}_{variant}_ipc{ipc}_{options.protocol}"
    folder = options.workdir or pathlib.Path("runs") / name
    print(f"{variant}: {recipe.steps} steps on {data.train.spec.name}, protocol "
          f"{options.protocol}, in {folder}", file=sys.stderr)
    start = time.perf_counter()
    how = dict(key=options.seed, workdir=folder, log_every=options.log_every,
               save_seconds=options.save_seconds, save_every=options.save_every)
    if options.stages == 1:
        distilled = distill(recipe, data, **how)
    else:
        distilled = progressive(recipe, data, stages=options.stages, **how)
    folders = [folder] if options.stages == 1 else sorted(folder.glob("stage_*"))
    spent = sum(max(seconds_spent(f), 0.0) for f in folders) or time.perf_counter() - start
    save_grid(folder / "grid.png", distilled)
    if is_poster(distilled):
        save_poster(folder / "poster.png", distilled)
    if not options.evaluate:
        print(f"saved {folder / 'set.safetensors'} and grid.png")
        return 0
    if recipe.label_kind == "representations":
        if options.full:
            print("warning: sets of representations have no full-data baseline", file=sys.stderr)
        budget = evaluate.BUDGETS[options.protocol]
        if options.seeds:
            budget = dataclasses.replace(budget, seeds=options.seeds)
        figures = transfer_figures(distilled, recipe, data, folder=folder, seed=options.seed,
                                   budget=budget)
    else:
        figures = network_figures(distilled, recipe, data, ipc=ipc, seed=options.seed,
                                  seeds=options.seeds, full=options.full)
    cell = (data.train.spec.name, ipc)
    if recipe.read_out is not None and options.read_out:
        figures |= read_out_figures(distilled, data, seed=options.seed,
                                    known=method.published_read_out.get(cell))
    published = method.published.get(cell) if variant == method.name else None
    result = build_result(
        method=variant, data=data.train.spec.name, ipc=ipc, protocol=options.protocol,
        published=published and published._asdict(), distill_seconds=round(spent, 1),
        steps=distilled.recipe.get("ended_after", recipe.steps * options.stages),
        bytes=distilled.stored_bytes, seed=options.seed,
        command="python -m dd_jax distill " + shlex.join(words),
        settings=dict(recipe.settings), evaluation=dict(distilled.evaluation), **figures,
    )
    write_result(folder / "result.json", result)
    if options.json:
        write_result(options.json, result)
    print_results([result])
    print(f"set, picture, metrics and result are in {folder}")
    return 0
