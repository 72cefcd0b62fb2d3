"""`python -m dd_jax evaluate FILE`: test a saved set on fresh networks."""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from dd_jax.cli.options import load_data, parse
from dd_jax.cli.tables import print_table
from dd_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Options of `evaluate`.

    Attributes:
      file: a set that this library saved.
      data: whose test part is used: "embedded", "fashion_mnist", "tfds:NAME" or a path; by
        default the data set that was distilled, found by its name.
      networks: comma-separated names, for example convnet,mlp; the set's own by default; "none" for
        regression alone.
      augmentation: instead of the set's own, for example "none" or "dsa".
      epochs: instead of the set's own.
      seeds: networks to train of each architecture; the protocol's number by default.
      seed: of the networks.
      kernel: also predict by regression with this kernel, for example "fc3"; by default with the
        set's own, if it has one; "none" for no regression.
      random: also test random real images of the same budget.
      json: also write the figures to this file.
    """

    file: Annotated[pathlib.Path, tyro.conf.Positional]
    data: str | None = None
    networks: str | None = None
    augmentation: str | None = None
    epochs: int | None = None
    kernel: str | None = None
    seeds: int | None = None
    seed: int = 1
    random: bool = True
    json: pathlib.Path | None = None


def protocol_of(distilled):
    """The protocol that travels with a set."""
    from dd_jax.evaluate import Protocol

    return Protocol.from_plain(distilled.evaluation)


def _read_out_of(name: str | None, distilled):
    """The kernel regression that was asked for, or the set's own, or None."""
    from dd_jax.evaluate import ReadOut, own_read_out

    if name == "none" or (name is None and "read_out" not in distilled.evaluation):
        return None
    return own_read_out(distilled) if name is None else ReadOut(name)


def _transfer(words: Sequence[str], options: Evaluate, distilled, data, protocols) -> int:
    """Linear probe and fine-tuning of networks pre-trained on a set of representations."""
    import jax

    from dd_jax import evaluate
    from dd_jax.report.result import percent, write_result

    budget = evaluate.BUDGETS["cpu"]
    if options.seeds:
        budget = dataclasses.replace(budget, seeds=options.seeds)
    rows, results = [], []
    cases = [(p, name, synthetic) for p in protocols
             for name, synthetic in (("on the set", distilled.synthetic), ("not at all", None))]
    for protocol, name, synthetic in cases:
        found = evaluate.evaluate_transfer(
            synthetic, data, normaliser=distilled.normaliser, protocol=protocol, budget=budget,
            key=jax.random.key(options.seed),
        )
        rows.append((protocol.network.name, name, percent(found.probe.mean, found.probe.std),
                     percent(found.tuned.mean, found.tuned.std), str(budget.seeds),
                     f"{found.probe.seconds:.0f} s"))
        results.append({"network": protocol.network.name, "pretrained": name,
                        "probe_mean": found.probe.mean, "probe_std": found.probe.std,
                        "tuned_mean": found.tuned.mean, "tuned_std": found.tuned.std,
                        "seconds": round(found.probe.seconds, 1)})
    print_table(("network", "pre-trained", "linear probe", "fine-tuned", "networks", "time"), rows)
    if options.json:
        write_result(options.json, _described(words, options, distilled, data, results))
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
    import jax

    from dd_jax import evaluate, store
    from dd_jax.report.result import percent, write_result

    options = parse(Evaluate, words, program="python -m dd_jax evaluate")
    if options.seeds is not None and options.seeds < 1:
        raise ConfigError(f"seeds is {options.seeds}, expected at least 1", fix="pass --seeds 5")
    distilled = store.load(options.file)
    own = {"augmentation": options.augmentation, "epochs": options.epochs}
    protocol = protocol_of(distilled).varied(
        **{k: v for k, v in own.items() if v is not None})
    names = (options.networks or protocol.network.name).split(",")
    names = [] if options.networks == "none" else names
    protocols = [evaluate.for_network(protocol, name.strip()) for name in names]
    by = _read_out_of(options.kernel, distilled)
    if not protocols and by is None:
        raise ConfigError("networks is 'none' and there is no kernel: nothing is to be tested",
                          fix="pass --kernel fc3, or name a network")
    own_name = distilled.spec.name
    data = load_data(options.data or own_name)
    if data.test.spec.class_names != distilled.spec.class_names:
        print(f"warning: the classes of {data.test.spec.name} are not called as those of the set, "
              f"which was distilled from {own_name}", file=sys.stderr)
    if distilled.label_kind == "representations":
        if options.kernel not in (None, "none") or options.augmentation is not None:
            raise ConfigError("the set holds representations: --kernel and --augmentation have no "
                              "meaning for it", fix="leave them out")
        return _transfer(words, options, distilled, data, protocols)
    options = dataclasses.replace(
        options, random=options.random and evaluate.has_random(distilled, data.train))
    rows, results = [], []
    for each in protocols:
        key = jax.random.key(options.seed)
        tested = evaluate.evaluate_progressive(distilled, data.test, protocol=each, key=key,
                                               seeds=options.seeds)
        random = None
        if options.random:
            random = evaluate.evaluate_random(
                data, normaliser=distilled.normaliser, protocol=each, key=key, ipc=distilled.ipc,
                label_kind=distilled.label_kind, label_scale=distilled.label_scale,
                seeds=options.seeds, shown=distilled.synthetic.images.shape[0],
            )
        rows.append((each.network.name, percent(tested.mean, tested.std),
                     percent(random.mean, random.std) if random else "-",
                     str(len(tested.accuracies)), f"{tested.seconds:.0f} s"))
        results.append({
            "network": each.network.name, "accuracy_mean": tested.mean, "accuracy_std": tested.std,
            "accuracies": tested.accuracies.tolist(), "seconds": round(tested.seconds, 1),
            "random_mean": random and random.mean, "random_std": random and random.std,
            "protocol": each.plain(),
        })
    if by is not None:
        read = evaluate.read_out(distilled, data.test, by=by)
        random = evaluate.read_out_random(distilled, data, key=jax.random.key(options.seed),
                                          by=by) if options.random else None
        rows.append((f"kernel {by.kernel}", percent(read.mean),
                     percent(random.mean, random.std) if random else "-", "-",
                     f"{read.seconds:.0f} s"))
        results.append({"kernel": dataclasses.asdict(by), "accuracy_mean": read.mean,
                        "seconds": round(read.seconds, 1),
                        "random_mean": random and random.mean,
                        "random_std": random and random.std})
    print_table(("network", "accuracy", "random", "networks", "time"), rows)
    if options.json:
        write_result(options.json, _described(words, options, distilled, data, results))
    return 0
