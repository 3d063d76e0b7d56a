"""Run a plan: prepare, train and score in several processes; results are appended as they come."""

import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dimerec.config import Struct
from dimerec.errors import DataError, DimeRecError
from dimerec.experiments.plan import (
    WATCHED,
    Plan,
    RunPlan,
    Variant,
    fingerprint,
    recipe,
    trained,
)
from dimerec.experiments.units import scale
from dimerec.experiments.workers import Workers

if TYPE_CHECKING:
    from dimerec.data.dataset import Dataset
    from dimerec.training.run import Run

log = logging.getLogger(__name__)
RUNS = 4  # of one process, which grows with each
LOOK = 1.0  # seconds between two looks at what is running
SUMMARY = (  # of a run, kept with each of its rows
    "steps",
    "best_step",
    "targets",
    "targets_per_second",
    "seconds",
    "cpu_seconds",
    "parameters",
    "digest",
    "device",
    "threads",
    "versions",
)


class Result(Struct, frozen=True):
    """One row of one seed, as it stands in a result file.

    Attributes:
        fingerprint: of everything the row depends on.
        label, seed: row and seed.
        metrics: on the test split.
        validation: best validation metrics and the step they belong to.
        card: the protocol card of the evaluation.
        training: steps, targets, seconds, targets a second, weights digest, device, threads.
    """

    fingerprint: str
    label: str
    seed: int
    metrics: dict[str, float]
    validation: dict[str, float]
    card: dict[str, Any]
    training: dict[str, Any]


@dataclass(frozen=True)
class Running:
    """A run at work: row and seed, and its folder, whose `metrics.jsonl` says how far it is."""

    label: str
    seed: int
    folder: Path


def read(path: Path) -> list[Result]:
    """Results in a file, one JSON object a line; none when it does not exist.

    A last line cut short by a kill is dropped: its run is done again.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    complete, rest = lines[:-1], lines[-1]
    if rest:
        path.write_bytes(b"".join(line + b"\n" for line in complete))
    try:
        return [msgspec.json.decode(line, type=Result) for line in complete if line]
    except msgspec.DecodeError as e:
        raise DataError(f"{path}: not a result file ({e}); move it away to start anew") from e


def pending(plan: Plan, done: list[Result]) -> list[tuple[RunPlan, int]]:
    """Runs whose results are not there yet, seed by seed."""
    have = {(r.label, r.fingerprint) for r in done}
    return [
        (run, seed)
        for run, seed in plan.trainings
        if (run.label, fingerprint(plan, run, seed)) not in have
    ]


def run(
    plan: Plan,
    results: Path,
    work: Path,
    *,
    jobs: int = 1,
    report: Callable[[str], None] = log.info,
    look: Callable[[list[Running], int, int], None] | None = None,
) -> list[Result]:
    """Do what is not done yet and return all results; one failure does not lose the rest.

    Args:
        results: the result file (JSON lines); appended to run by run.
        work: prepared data and run folders; an interrupted run goes on from its checkpoint.
        jobs: processes, one torch thread each.
        report: told one line for each event.
        look: called every second with the runs at work, how many are done, and how many there are.

    Raises:
        DataError: results that are there already are of other data than what is at hand.
        DimeRecError: after the last run, when some failed; names them.
    """
    todo = pending(plan, read(results))
    report(f"{plan.title}: {len(todo)} of {len(plan.trainings)} runs to do")
    if todo:
        dataset = prepared(plan, work)
        _same_data(current(plan, results), dataset, results)
        results.parent.mkdir(parents=True, exist_ok=True)
        failures = []
        start = time.monotonic()
        pool = Workers(jobs, RUNS)
        try:
            futures = {pool.submit(one, plan, r, s, dataset, work): (r, s) for r, s in todo}
            waiting, n = set(futures), 0
            while waiting:
                ended, waiting = wait(waiting, LOOK, FIRST_COMPLETED)
                for future in ended:
                    n += 1
                    what, seed = futures[future]
                    error = future.exception()
                    if error is not None:
                        failures.append(f"{what.label} (seed {seed}): {error}")
                        report(f"failed: {failures[-1]}")
                        continue
                    rows = future.result()
                    with results.open("ab") as f:
                        f.write(b"".join(msgspec.json.encode(r) + b"\n" for r in rows))
                    known = [m for m in plan.metrics if m in rows[0].metrics]
                    shown = ", ".join(f"{m} {scale(m) * rows[0].metrics[m]:.2f}" for m in known)
                    left = (time.monotonic() - start) / n * (len(todo) - n) / 60
                    report(f"{what.label}, seed {seed}: {shown} ({left:.0f} min left)")
                if look is not None:
                    busy = (futures[f] for f in futures if f in waiting and f.running())
                    look(
                        [Running(r.label, s, _folder(plan, r, s, work)) for r, s in busy],
                        n,
                        len(todo),
                    )
        finally:  # Ctrl-C reaches the runs too: each leaves its checkpoint, and no other begins
            pool.shutdown()
        if failures:
            raise DimeRecError(f"{len(failures)} runs failed: " + "; ".join(failures))
    return current(plan, results)


def _same_data(done: list[Result], dataset: Path, results: Path) -> None:
    """A source can be read from another file under the same name: one table never mixes both."""
    from dimerec.data.dataset import Dataset

    here = Dataset.open(dataset).digest
    for other in {r.card["digest"] for r in done} - {here}:
        raise DataError(
            f"{results} holds results on data with the digest {other[:12]}, and {dataset} has "
            f"{here[:12]}: get the same data (then delete {dataset}), or move the result file away "
            "to begin a table of these"
        )


def current(plan: Plan, results: Path) -> list[Result]:
    """Results in the file that the plan as it stands now would give."""
    marks = {
        (label, fingerprint(plan, run, seed))
        for run, seed in plan.trainings
        for label in run.labels
    }
    return [r for r in read(results) if (r.label, r.fingerprint) in marks]


def trained_before(plan: Plan, run: RunPlan, seed: int, work: Path) -> "Run | None":
    """The run's folder when its training is over: only its scores are left to do."""
    from dimerec.training.run import Run

    out = _folder(plan, run, seed, work)
    if not (out / "run.json").is_file():
        return None
    done = Run.open(out)
    return None if done.stopped == "interrupted" else done


def costs(plan: Plan, done: list[Result], work: Path) -> dict[str, float]:
    """Seconds that one training of a row took, by label, where one of its seeds is known."""
    rows = {r.label: r.training["seconds"] for r in done}
    for run, seed in plan.trainings:
        file = _folder(plan, run, seed, work) / "run.json"
        if run.label not in rows and file.is_file():
            rows[run.label] = msgspec.json.decode(file.read_bytes())["seconds"]
    return {run.label: rows[run.label] for run in plan.runs if run.label in rows}


def prepared(plan: Plan, work: Path) -> Path:
    """The plan's dataset under `work`, prepared when it is not there yet."""
    from dimerec.data import sources
    from dimerec.data.prepare import prepare
    from dimerec.data.splits import Protocol

    data = plan.data
    path = work / "data" / f"{data.source}-{data.protocol}-{data.split_seed}"
    core = f"{data.min_user_events}-{data.min_item_events}{'' if data.iterate else '-once'}"
    path = path.with_name(f"{path.name}-{core}")
    if not path.exists():
        loaded = sources.read(data.source)
        protocol = msgspec.convert({"name": data.protocol, "seed": data.split_seed}, Protocol)
        prepare(
            loaded.log,
            path,
            protocol=protocol,
            min_user_events=data.min_user_events,
            min_item_events=data.min_item_events,
            iterate=data.iterate,
            items=loaded.items,
            given=loaded.split if data.protocol == "given" else None,
            name=data.source,
        )
    return path


def ranks_folder(work: Path, plan: Plan, run: RunPlan, seed: int, label: str) -> Path:
    """Where the evaluation of a row lies, query by query, for tests that pair them."""
    name = re.sub(r"\W+", "-", label).strip("-") + ("-hidden" if plan.data.hide_seen else "")
    return _folder(plan, run, seed, work) / "evaluations" / name


def _folder(plan: Plan, run: RunPlan, seed: int, work: Path) -> Path:
    return work / "runs" / trained(plan, run, seed)


def one(plan: Plan, run: RunPlan, seed: int, dataset: Path, work: Path) -> list[Result]:
    """Train one configuration with one seed and score all its rows on the test split."""
    import torch

    from dimerec.bundle import Bundle
    from dimerec.data.dataset import Dataset
    from dimerec.evaluation.evaluator import evaluate
    from dimerec.experiments import measures

    torch.set_num_threads(1)
    data = Dataset.open(dataset)
    done = _trained(plan, run, seed, data, work)
    bundle = Bundle.open(done.bundle)
    summary = {name: getattr(done, name) for name in SUMMARY}
    rows = []
    for variant in (Variant(label=""), *run.variants):
        label = f"{run.label}, {variant.label}" if variant.label else run.label
        scored = evaluate(
            bundle.with_options(variant.options),
            data,
            split="test",
            positions=plan.data.positions,
            hide_seen=plan.data.hide_seen,
            seed=seed,
        )
        scored.write(ranks_folder(work, plan, run, seed, label))
        more = {}
        if not variant.label:
            for name in plan.measures:
                more.update(measures.measure(name, done, data, plan.data.positions, seed))
        rows.append(
            Result(
                fingerprint=fingerprint(plan, run, seed),
                label=label,
                seed=seed,
                metrics={**scored.metrics, **more},
                validation=done.validation,
                card=msgspec.to_builtins(scored.card),
                training=summary,
            )
        )
    return rows


def _trained(plan: Plan, run: RunPlan, seed: int, data: "Dataset", work: Path) -> "Run":
    """The run's folder: trained now, gone on with, or found there whole."""
    from dimerec.experiments.curves import watch
    from dimerec.training.loop import train

    if (before := trained_before(plan, run, seed, work)) is not None:
        return before
    done = train(
        data,
        recipe(plan, run, seed),
        _folder(plan, run, seed, work),
        resume=True,
        threads=1,
        progress=False,
        watch=watch if WATCHED in plan.measures else None,
    )
    if done.stopped == "interrupted":
        raise DimeRecError("interrupted; start again to go on from its checkpoint")
    return done
