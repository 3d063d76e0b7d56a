"""Render results as Markdown: mean and standard deviation over seeds, nothing typed by hand."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import mean, stdev

from dimerec.experiments.plan import Plan
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
    return "\n".join([HEAD, *parts])


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


def parity(plan: Plan, rows: Mapping[str, list[Result]]) -> list[str]:
    """Lines of a table of our figures beside the published ones; none where a plan has none."""
    lines, explained = [], []
    for run in plan.runs:
        found = rows[run.label]
        for target in run.published if found else []:
            reached = True
            for metric, share in target.metrics.items():
                values, theirs = _percent(found, metric), 100 * share
                off = mean(values) / theirs - 1
                verdict = "yes" if abs(off) <= target.tolerance else "no"
                reached = reached and verdict == "yes"
                lines.append(
                    f"| {run.label} | {metric.upper()} | {_cell(values)} | {theirs:.2f} | "
                    f"{100 * off:+.1f} % | {verdict} (± {100 * target.tolerance:g} %) | "
                    f"{target.source} |"
                )
            if not reached and target.explained:
                explained.append(f"- {run.label}, beside {target.source}: {target.explained}.")
    if not lines:
        return []
    if explained:
        explained = ["", "What accounts for the differences, as tested:", "", *explained]
    return [
        "",
        "Beside published figures, in percent:",
        "",
        "| model | metric | here | published | difference | within | source |",
        "| --- | --- | ---: | ---: | ---: | --- | --- |",
        *lines,
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
