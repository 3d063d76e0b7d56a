"""A study's page in Markdown, from its summary alone."""

from collections.abc import Iterable, Sequence
from statistics import mean, stdev

from dimerec.experiments.summary import Row, Summary, places
from dimerec.experiments.units import scale, shown

HEAD = "Made by `dimerec reproduce`; not edited by hand.\n"
SIGNIFICANT = 0.05


def page(summary: Summary, figures: Sequence[str] = (), numbers: Sequence[str] = ()) -> str:
    """The whole page.

    Args:
        figures: paths of pictures relative to it.
        numbers: lines that go before the figures.
    """
    lines = [
        f"# {summary.title}",
        "",
        HEAD,
        summary.about,
        "",
        _terms(summary),
        "",
        *_table(summary),
    ]
    if summary.leads:
        lines += ["", *_leads(summary)]
    if summary.notes:
        lines += ["", *(f"- {note}." for note in summary.notes)]
    if numbers:
        lines += ["", *numbers]
    for figure in figures:
        lines += ["", f"![{summary.title}, {figure.removesuffix('.svg')}]({figure})"]
    return "\n".join([*lines, ""])


def index(pages: Iterable[tuple[str, Summary]]) -> str:
    """The list of all pages."""
    lines = [
        "# The paper's experiments",
        "",
        HEAD,
        "| study | dataset | budget | seeds | queries |",
        "| --- | --- | --- | ---: | ---: |",
    ]
    lines += [
        f"| [{s.title}]({path}) | {s.dataset} | {s.budget} | {len(s.seeds)} | "
        f"{s.card['queries']:,} |"
        for path, s in pages
    ]
    return "\n".join([*lines, ""])


def cell(row: Row, metric: str, summary: Summary) -> str:
    """Mean and standard deviation over seeds; the best bold, the second best underlined, a star
    where the best is significantly better than the second.
    """
    if metric not in row.metrics:
        return ""
    values = [scale(metric) * v for v in row.metrics[metric]]
    spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    text = f"{mean(values):.2f}{spread}"
    best, second = places(summary.rows, metric)
    if row.label == best and len(summary.rows) > 1:
        p = next((lead.p for lead in summary.leads if lead.metric == metric), 1.0)
        star = " \\*" if p < SIGNIFICANT else ""
        return f"**{text}**{star}"
    return f"<u>{text}</u>" if row.label == second and len(summary.rows) > 2 else text


def _terms(summary: Summary) -> str:
    card = summary.card
    note = f" {summary.note}" if summary.note else ""
    seen = "hidden" if card["hide_seen"] else "kept"
    return (
        f"Data: `{card['dataset']}` (digest `{card['digest'][:12]}`), {card['protocol']['name']}, "
        f"split seed {card['protocol']['seed']}; {card['queries']:,} {card['split']} queries of "
        f"{card['users']:,} users, {card['positions']}; seen items {seen}; {card['candidates']}."
        f"{note}\n\nBudget `{summary.budget}`: {summary.terms} {summary.epochs} passes over the "
        f"training targets for every row that does not say otherwise; the best validation "
        f"is kept. Seeds {', '.join(map(str, summary.seeds))}. Machine: {summary.machine}. "
        f"Command: `dimerec reproduce {summary.study} --dataset {summary.dataset} --budget "
        f"{summary.budget}`.\n\nShares in percent: mean ± standard deviation over seeds; the best "
        f"mean is bold, the second underlined; a star marks a best that is better than the second "
        f"with p < {SIGNIFICANT} (paired over users and seeds, Holm's correction over the table). "
        f"The paper's figures, on its own data, stand in italics."
    )


def _table(summary: Summary) -> list[str]:
    names = [shown(m) for m in summary.metrics]
    lines = [
        "| model | " + " | ".join(names) + " | parameters | CPU s |",
        "| --- |" + " ---: |" * (len(names) + 2),
    ]
    for row in summary.rows:
        values = [cell(row, m, summary) for m in summary.metrics]
        cost = [f"{row.parameters:,}", f"{row.cpu_seconds:,.0f}"]
        lines.append(f"| {row.label} | " + " | ".join(values + cost) + " |")
    for other in summary.published:
        known = other.metrics
        if not any(m in known for m in summary.metrics):
            continue
        cells = [f"*{known[m] * scale(m):.2f}*" if m in known else "" for m in summary.metrics]
        lines.append(f"| *{other.label}* ({other.source}) | " + " | ".join(cells) + " | | |")
    return lines


def _leads(summary: Summary) -> list[str]:
    return [
        f"- {lead.metric.upper()}: {lead.best} over {lead.second} by {100 * lead.difference:.2f} "
        f"points (95 % interval over users {100 * lead.low:.2f} to {100 * lead.high:.2f}), "
        f"p = {lead.p:.2g}."
        for lead in summary.leads
    ]
