"""What a study's runs amount to on one dataset: `results.json`, from which its page is rendered.

Everything that a page says is in here, and every number of it is of a row of `results.jsonl`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import msgspec

from dimerec import files
from dimerec.config import Struct
from dimerec.errors import DataError
from dimerec.evaluation import comparison
from dimerec.evaluation.evaluator import Evaluation
from dimerec.experiments.plan import Curve, Plan, Published
from dimerec.experiments.runner import Result, ranks_folder
from dimerec.experiments.study import StudyData
from dimerec.experiments.tables import by_label


class Row(Struct, frozen=True):
    """One row: a metric is a list with one value a seed, in the order of `seeds`.

    Attributes:
        label, seeds: which results.
        metrics: all that was measured.
        parameters: trained numbers.
        targets, cpu_seconds: mean training targets seen, and process time of the training.
        weights: digests of the weights, seed by seed.
        x, series: of the hyper-parameter that the row stands for, and the line it is a point of.
    """

    label: str
    seeds: list[int]
    metrics: dict[str, list[float]]
    parameters: int
    targets: float
    cpu_seconds: float
    weights: list[str]
    x: float | None = None
    series: str = ""


class Lead(Struct, frozen=True):
    """The best row of a metric against the second best, paired by query.

    Attributes:
        metric, best, second: labels by their means over seeds.
        difference, low, high: of the means, and its 95 % interval over resampled users.
        p: of no difference over users and seeds (over users, with one seed), Holm-adjusted over
            the metrics of the table.
    """

    metric: str
    best: str
    second: str
    difference: float
    low: float
    high: float
    p: float


class Summary(Struct, frozen=True, kw_only=True):
    """The content of `results.json`."""

    study: str
    dataset: str
    budget: str
    title: str
    about: str
    terms: str
    note: str
    metrics: list[str]
    axis: str
    seeds: list[int]
    epochs: int
    card: dict[str, Any]
    machine: str
    rows: list[Row]
    leads: list[Lead]
    published: list[Published]
    notes: list[str]
    curves: list[Curve] = []


def make(
    names: tuple[str, str, str],
    terms: str,
    data: StudyData,
    plan: Plan,
    results: list[Result],
    work: Path,
    points: Mapping[str, tuple[float, str]],
    axis: str = "",
    before: Summary | None = None,
) -> Summary:
    """The summary of a plan's results.

    Args:
        names: of the study, the dataset and the budget.
        terms: the budget in words.
        data: the study's entry of the dataset.
        results: those of the plan, not none.
        work: where the rows' ranks lie; without them there are no new leads.
        points: hyper-parameter value and line of a figure, by label of the run.
        before: an earlier summary: where ranks are missing, its leads stand if its rows do.

    Raises:
        DataError: there is no result.
    """
    if not results:
        raise DataError(f"{plan.title}: no result yet")
    found = {label: sorted(rs, key=_seed) for label, rs in by_label(plan, results).items() if rs}
    rows = [_row(label, rs) for label, rs in found.items()]
    rows = _placed(plan, rows, points)
    notes = [f"{r.label}: {r.note}" for r in plan.runs if r.note]
    notes += [
        f"{r.label}: {r.epochs} pass{'es' if r.epochs > 1 else ''} over the training targets"
        for r in plan.runs
        if r.epochs
    ]
    notes += [
        f"{row.label}: {len(row.seeds)} of {len(plan.seeds)} seeds"
        for row in rows
        if len(row.seeds) < len(plan.seeds)
    ]
    missing = [label for label, rs in by_label(plan, results).items() if not rs]
    if missing:
        notes.append(f"not run: {', '.join(missing)}")
    machines = {f"{r.training['device']}, {r.training['threads']} thread a run" for r in results}
    return Summary(
        study=names[0],
        dataset=names[1],
        budget=names[2],
        title=plan.title,
        about=plan.about.strip(),
        terms=terms,
        note=data.note,
        metrics=[m for m in plan.metrics if any(m in row.metrics for row in rows)],
        axis=axis,
        seeds=plan.seeds,
        epochs=plan.epochs,
        card={k: v for k, v in results[0].card.items() if k in CARD},
        machine="; ".join(sorted(machines)),
        rows=rows,
        leads=_leads(plan, rows, work) or _kept(plan, rows, before),
        published=plan.published,
        notes=notes,
        curves=plan.curves,
    )


CARD = (
    "dataset",
    "digest",
    "protocol",
    "split",
    "positions",
    "queries",
    "users",
    "candidates",
    "hide_seen",
    "ties",
    "versions",
)


def write(summary: Summary, file: Path) -> None:
    """Write `results.json`, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_file(file, msgspec.json.format(msgspec.json.encode(summary), indent=1) + b"\n")


def read(file: Path) -> Summary:
    """A `results.json`; DataError when it is none."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Summary)
    except (OSError, msgspec.DecodeError) as e:
        reason = f"{file}: no summary of results ({e}); delete it to have it made anew"
        raise DataError(reason) from e


def places(rows: Sequence[Row], metric: str) -> tuple[str, str]:
    """Labels of the best and the second best row by their mean over seeds; "" where there is none.

    Larger is better, save for a Gini index, which measures inequality. Rows without the metric do
    not compete, and nobody wins where all are equal.
    """
    known = [r for r in rows if metric in r.metrics]
    if len({tuple(r.metrics[metric]) for r in known}) < 2 <= len(known):
        return "", ""
    sign = 1 if metric.startswith("gini") else -1
    order = sorted(known, key=lambda r: sign * mean(r.metrics[metric]))
    names = [r.label for r in order] + ["", ""]
    return names[0], names[1]


def _placed(plan: Plan, rows: list[Row], points: Mapping[str, tuple[float, str]]) -> list[Row]:
    """The rows with their place in the figure; a variant is on the line of its own name."""
    places = {}
    for run in plan.runs:
        if run.label in points:
            x, series = places[run.label] = points[run.label]
            for label, v in zip(run.labels[1:], run.variants, strict=True):
                places[label] = x, f"{series}, {v.label}" if series else v.label
    return [
        msgspec.structs.replace(r, x=places[r.label][0], series=places[r.label][1])
        if r.label in places
        else r
        for r in rows
    ]


def _row(label: str, results: list[Result]) -> Row:
    shared = [m for m in results[0].metrics if all(m in r.metrics for r in results)]
    return Row(
        label=label,
        seeds=[r.seed for r in results],
        metrics={m: [r.metrics[m] for r in results] for m in shared},
        parameters=results[0].training["parameters"],
        targets=mean(r.training["targets"] for r in results),
        cpu_seconds=mean(r.training["cpu_seconds"] for r in results),
        weights=[r.training["digest"] for r in results],
    )


def _leads(plan: Plan, rows: list[Row], work: Path) -> list[Lead]:
    """The leads of all metrics that a query has; none where the ranks of a row are not there."""
    labels = {v: run for run in plan.runs for v in run.labels}
    metrics = [m for m in plan.metrics if m in comparison.FAMILY]
    pairs = {m: places(rows, m) for m in metrics}
    seeds = {r.label: r.seeds for r in rows}
    sides: dict[str, list[Evaluation]] = {}
    for label in {name for pair in pairs.values() for name in pair if name}:
        folders = [ranks_folder(work, plan, labels[label], s, label) for s in seeds[label]]
        if not all(f.is_dir() for f in folders):
            return []
        sides[label] = [comparison.read(f) for f in folders]
    leads = []
    for metric, (best, second) in pairs.items():
        if second:
            (found,) = comparison.compare(sides[best], sides[second], [metric], (best, second))
            gap = found.difference
            leads.append(Lead(metric, best, second, gap.value, gap.low, gap.high, found.p))
    adjusted = comparison.statistics.holm([lead.p for lead in leads])
    return [msgspec.structs.replace(lead, p=p) for lead, p in zip(leads, adjusted, strict=True)]


def _kept(plan: Plan, rows: list[Row], before: Summary | None) -> list[Lead]:
    """The leads of an earlier summary, where the same rows are the two best of the same metrics
    with the very same numbers; none otherwise."""
    if before is None:
        return []
    pairs = {m: places(rows, m) for m in plan.metrics if m in comparison.FAMILY}
    led = {m: pair for m, pair in pairs.items() if pair[1]}
    if led != {lead.metric: (lead.best, lead.second) for lead in before.leads}:
        return []
    was, are = ({r.label: (r.seeds, r.metrics, r.weights) for r in x} for x in (before.rows, rows))
    names = {label for pair in led.values() for label in pair}
    return before.leads if all(was.get(n) == are[n] for n in names) else []


def _seed(result: Result) -> int:
    return result.seed
