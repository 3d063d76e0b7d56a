"""Render results as Markdown: mean and standard deviation over seeds, nothing typed by hand."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev

from dimerec.experiments.plan import Plan, RunPlan, Target
from dimerec.experiments.runner import Result
from dimerec.experiments.units import scale, shown

HEAD = """# Results

Made by `make docs` from `experiments/*.toml` and `results/*.jsonl`; not edited by hand. A row is
the mean ± standard deviation over seeds of metrics in percent on the test split, each target ranked
against the full catalogue; the best mean is bold. Figures of published papers stand in italics
where they may help; their data and protocol differ, as their rows say.
"""


def page(plans: Mapping[Path, Plan], results: Mapping[Path, list[Result]]) -> str:
    """The results page of all experiments that have results."""
    parts = [section(plan, results[path], path) for path, plan in plans.items() if results[path]]
    return "\n".join([HEAD, *overview(plans, results), *parts])


def section(plan: Plan, results: list[Result], path: Path) -> str:
    """One experiment: what it is, its protocol, the table, notes."""
    rows = by_label(plan, results)
    known = {m: [v for rs in rows.values() if (v := _percent(rs, m))] for m in plan.metrics}
    best = {m: max(map(mean, values), default=0.0) for m, values in known.items()}
    lines = [
        f"## {plan.title}",
        "",
        plan.about.strip(),
        "",
        _protocol(plan, results, path),
        "",
        "| model | " + " | ".join(shown(m) for m in plan.metrics) + " | targets/s | CPU s |",
        "| --- |" + " ---: |" * (len(plan.metrics) + 2),
    ]
    for label, found in rows.items():
        if found:
            values = [_cell(_percent(found, m), best[m]) for m in plan.metrics]
            rate = mean(r.training["targets_per_second"] for r in found)
            seconds = mean(r.training["cpu_seconds"] for r in found)
            cost = [f"{rate:,.0f}", f"{seconds:,.0f}"]
            lines.append(f"| {label} | " + " | ".join(values + cost) + " |")
    for other in plan.published:
        known = other.metrics
        values = [f"*{100 * known[m]:.2f}*" if m in known else "" for m in plan.metrics]
        lines.append(f"| *{other.label}* ({other.source}) | " + " | ".join(values) + " | | |")
    notes = [f"- {r.label}: {r.note}." for r in plan.runs if r.note]
    seeds = {label: len(found) for label, found in rows.items() if len(found) < len(plan.seeds)}
    passes = {r.label: r.epochs for r in plan.runs if r.epochs}
    notes += _together(seeds, lambda n: f"{n} of {len(plan.seeds)} seeds")
    notes += _together(passes, lambda n: f"{n} {'pass' if n == 1 else 'passes'}")
    return "\n".join([*lines, "", *notes, *parity(plan, rows), ""])


def _together(numbers: Mapping[str, int], words: Callable[[int], str]) -> list[str]:
    """A line for each number, with all labels that have it."""
    return [
        f"- {words(n)}: {'; '.join(label for label, m in numbers.items() if m == n)}."
        for n in sorted(set(numbers.values()))
    ]


@dataclass(frozen=True)
class Compared:
    """A figure of ours beside a published one.

    Attributes:
        run, target, metric: which.
        ours, theirs: in percent, ours with one value a seed.
    """

    run: RunPlan
    target: Target
    metric: str
    ours: list[float]
    theirs: float

    @property
    def off(self) -> float:
        """Relative difference of our mean."""
        return mean(self.ours) / self.theirs - 1

    @property
    def within(self) -> bool:
        """Whether that counts as the same."""
        return abs(self.off) <= self.target.tolerance


def compared(plan: Plan, rows: Mapping[str, list[Result]]) -> list[Compared]:
    """Every published figure that a row with results is held against, in the plan's order."""
    return [
        Compared(run, target, metric, _percent(found, metric), 100 * share)
        for run in plan.runs
        if (found := rows[run.label])
        for target in run.published
        for metric, share in target.metrics.items()
    ]


def overview(plans: Mapping[Path, Plan], results: Mapping[Path, list[Result]]) -> list[str]:
    """Lines of a table of all published figures, one for each row and source; or none."""
    lines = []
    for path, plan in plans.items():
        if not results[path]:
            continue
        name = re.sub(r"[^\w -]", "", plan.title.lower()).replace(" ", "-")
        for _, group in groupby(
            compared(plan, by_label(plan, results[path])), lambda c: (c.run.label, c.target.source)
        ):
            each = list(group)
            far = max(each, key=lambda c: abs(c.off))
            lines.append(
                f"| [{plan.title}](#{name}) | {far.run.label} | {len(far.ours)} | "
                f"{sum(c.within for c in each)} of {len(each)} | {100 * far.off:+.1f} % | "
                f"{far.target.source} |"
            )
    if not lines:
        return []
    return [
        "## Published figures",
        "",
        "Rows that others published too: how many of their figures are reached within the",
        "tolerance, and the largest relative difference. Where one is not reached, the section of",
        "the table says what was tested.",
        "",
        "| table | row | seeds | within | largest | source |",
        "| --- | --- | ---: | ---: | ---: | --- |",
        *lines,
        "",
    ]


def parity(plan: Plan, rows: Mapping[str, list[Result]]) -> list[str]:
    """Lines of a table of our figures beside the published ones; none where a plan has none."""
    pairs = compared(plan, rows)
    if not pairs:
        return []
    lines = [
        f"| {c.run.label} | {c.metric.upper()} | {_cell(c.ours)} | {c.theirs:.2f} | "
        f"{100 * c.off:+.1f} % | {'yes' if c.within else 'no'} "
        f"(± {100 * c.target.tolerance:g} %) | {c.target.source} |"
        for c in pairs
    ]
    explained = dict.fromkeys(
        f"- {c.run.label}, beside {c.target.source}: {c.target.explained}."
        for c in pairs
        if not c.within and c.target.explained
    )
    return [
        "",
        "Beside published figures, in percent:",
        "",
        "| model | metric | here | published | difference | within | source |",
        "| --- | --- | ---: | ---: | ---: | --- | --- |",
        *lines,
        *(["", "What was tested where a figure is not reached:", ""] if explained else []),
        *explained,
    ]


def cells(plan: Plan, results: list[Result]) -> list[list[str]]:
    """Rows of the table for a terminal: label, metrics, seeds."""
    return [
        [label, *(_cell(_percent(found, m)) for m in plan.metrics), str(len(found))]
        for label, found in by_label(plan, results).items()
        if found
    ]


def by_label(plan: Plan, results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results of each row, in the plan's order."""
    rows: dict[str, list[Result]] = {label: [] for run in plan.runs for label in run.labels}
    for result in results:
        rows[result.label].append(result)
    return rows


def _percent(results: list[Result], metric: str) -> list[float]:
    return [scale(metric) * r.metrics[metric] for r in results if metric in r.metrics]


def _cell(values: list[float], best: float | None = None) -> str:
    if not values:
        return ""
    spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    text = f"{mean(values):.2f}{spread}"
    return f"**{text}**" if mean(values) == best else text


def _protocol(plan: Plan, results: list[Result], path: Path) -> str:
    card = results[0].card
    machines = sorted({f"{r.training['device']}, {r.training['threads']} thread" for r in results})
    return (
        f"Data: `{plan.data.source}` (digest `{card['digest'][:12]}`), {plan.data.protocol}, split "
        f"seed {plan.data.split_seed}; {card['queries']:,} test queries, {plan.data.positions}; "
        f"seen items {'hidden' if plan.data.hide_seen else 'kept'}; {card['candidates']}. "
        f"Budget: {plan.epochs} passes over all training targets; the best of the validations is "
        f"kept. Seeds {', '.join(map(str, plan.seeds))}. Machine: "
        f"{'; '.join(machines)} a run. Command: `dimerec reproduce experiments/{path.name}`."
    )
