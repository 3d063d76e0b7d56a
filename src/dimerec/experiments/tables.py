"""Render results as Markdown: mean and standard deviation over seeds, nothing typed by hand."""

from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev

from dimerec.experiments import runner
from dimerec.experiments.plan import Plan, load
from dimerec.experiments.runner import Result

HEAD = """# Results

Made by `dimerec report` from `experiments/*.toml` and `results/*.jsonl`; do not edit. Every
row is the mean ± standard deviation over seeds of metrics in percent on the test split, ranked
against the full catalogue. Best mean in bold.
"""


def page(experiments: Path, results: Path) -> str:
    """The results page of every experiment file that has results."""
    parts = [HEAD]
    for path in sorted(experiments.glob("*.toml")):
        found = runner.current(load(path), results / f"{path.stem}.jsonl")
        if found:
            parts.append(table(load(path), found, path))
    return "\n".join(parts)


def table(plan: Plan, results: list[Result], path: Path) -> str:
    """One experiment's section: what it is, the table, notes, machine."""
    rows = by_label(plan, results)
    best = {m: max(mean(_values(rs, m)) for rs in rows.values() if rs) for m in plan.metrics}
    lines = [
        f"## {plan.title}",
        "",
        plan.about,
        "",
        _protocol(plan, results, path),
        "",
        "| model | "
        + " | ".join(m.upper() for m in plan.metrics)
        + " | seeds | targets/s | CPU s |",
        "| --- |" + " ---: |" * (len(plan.metrics) + 3),
    ]
    for label, found in rows.items():
        if not found:
            continue
        cells = [_cell(_values(found, m), best[m]) for m in plan.metrics]
        rate = mean(r.training["targets_per_second"] for r in found)
        seconds = mean(r.training["cpu_seconds"] for r in found)
        cells += [str(len(found)), f"{rate:,.0f}", f"{seconds:,.0f}"]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    for other in plan.published:
        cells = [f"{100 * other.metrics[m]:.2f}" if m in other.metrics else "" for m in plan.metrics]
        lines.append(f"| *{other.label}* ({other.source}) | " + " | ".join(cells) + " | | | |")
    notes = [f"- {r.label}: {r.note}" for r in plan.runs if r.note]
    missing = [label for label, found in rows.items() if len(found) < len(plan.seeds)]
    if missing:
        notes.append(f"- Not all seeds done: {', '.join(missing)}.")
    return "\n".join([*lines, "", *notes, ""])


def by_label(plan: Plan, results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results of each row, in the plan's order."""
    rows: dict[str, list[Result]] = {}
    for run in plan.runs:
        rows[run.label] = []
        rows.update({f"{run.label}, {v.label}": [] for v in run.variants})
    for result in results:
        rows[result.label].append(result)
    return rows


def _values(results: list[Result], metric: str) -> list[float]:
    return [100 * r.metrics[metric] for r in results]


def _cell(values: list[float], best: float) -> str:
    spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    text = f"{mean(values):.2f}{spread}"
    return f"**{text}**" if mean(values) == best else text


def _protocol(plan: Plan, results: list[Result], path: Path) -> str:
    card = results[0].card
    machines = sorted({f"{r.training['device']}, {r.training['threads']} thread" for r in results})
    seeds = ", ".join(str(s) for s in plan.seeds)
    return (
        f"Data: `{plan.data.source}` (digest `{card['digest'][:12]}`), {plan.data.protocol}, split "
        f"seed {plan.data.split_seed}; {card['queries']:,} queries at {plan.data.positions}; seen "
        f"items {'hidden' if plan.data.hide_seen else 'kept'}. Budget: every training target is "
        f"seen {plan.epochs} times; best of the validations. Seeds {seeds}. Each run on "
        f"{'; '.join(machines)}. Command: `dimerec reproduce experiments/{path.name}`."
    )
