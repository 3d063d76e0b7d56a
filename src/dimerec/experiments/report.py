"""The demo's report: one HTML file that holds all it needs, and opens without a network."""

from html import escape
from importlib import resources
from pathlib import Path

import msgspec

from dimerec.errors import ConfigError
from dimerec.experiments import report_plots as plots
from dimerec.experiments import report_text as text
from dimerec.experiments.demo import METRIC, SHORT, Demo
from dimerec.experiments.findings import Findings, findings
from dimerec.experiments.showcase import Shown
from dimerec.files import write_file

COLUMNS = {
    "hr@10": "HR@10",
    "hr@20": "HR@20",
    "hr@50": "HR@50",
    "ndcg@20": "NDCG@20",
    "mrr@20": "MRR@20",
}
DRAW = """
for (const holder of document.querySelectorAll(".plot")) {
  const figure = JSON.parse(document.getElementById(holder.dataset.figure).textContent);
  Plotly.newPlot(holder, figure.data, figure.layout, figure.config);
}
"""


def require() -> None:
    """ConfigError unless Plotly is installed: it is asked before the training, not after."""
    _plotly()


def write(demo: Demo, found: Findings | None = None) -> Path:
    """Write `report.html` into the demo's folder; its path.

    Raises:
        ConfigError: Plotly is not installed.
    """
    page = html(demo, found or findings(demo))
    write_file(demo.report, page.encode())
    return demo.report


def html(demo: Demo, found: Findings) -> str:
    """The whole page."""
    page = _Page()
    sections = (
        _comparison(page, demo),
        _showcase(demo, found),
        _diffusion(page, demo, found),
        _map(page, demo, found),
        _categories(page, demo),
        _learning(page, demo, found),
        _card(demo),
    )
    style = resources.files("dimerec.experiments").joinpath("report.css").read_text("utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>DimeRec on MovieLens</title>
<style>{style}</style>
</head>
<body>
{_header(demo)}
<main>
{"".join(sections)}
</main>
<footer><p>Made by <code>dimerec demo</code>. MovieLens: F. M. Harper and J. A. Konstan, 2015,
<i>The MovieLens Datasets: History and Context</i>, ACM TiiS 5, 4.</p></footer>
{page.figures()}
<script>{_plotly()}</script>
<script>{DRAW}</script>
</body>
</html>
"""


class _Page:
    """Collects the figures of a page, which are drawn at its end."""

    def __init__(self) -> None:
        self._figures: list[str] = []

    def plot(self, figure: plots.Figure, title: str) -> str:
        """The place of a figure; `title` is read out where it cannot be seen."""
        name = f"figure-{len(self._figures) + 1}"
        content = msgspec.json.encode({**figure, "config": plots.CONFIG}).decode()
        content = content.replace("<", "\\u003c")  # so that no title can end the script
        self._figures.append(f'<script type="application/json" id="{name}">{content}</script>')
        height = figure["layout"]["height"]
        return (
            f'<div class="plot" data-figure="{name}" style="height:{height}px" role="img" '
            f'aria-label="{escape(title)}"></div>'
        )

    def figures(self) -> str:
        return "\n".join(self._figures)


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{title}</h2>{''.join(parts)}</section>\n"


def _said(words: str) -> str:
    return f"<p>{_formula(words)}</p>"


def _formula(words: str) -> str:
    """Escaped text, its formulas set as such."""
    said = escape(words)
    for plain, marked in (
        ("x_t = 0", "x_t&nbsp;=&nbsp;0"),
        ("x_t", "x<sub>t</sub>"),
        ("L_gem", "L<sub>gem</sub>"),
        ("L_recon", "L<sub>recon</sub>"),
        ("L_ssm", "L<sub>ssm</sub>"),
    ):
        said = said.replace(plain, marked)
    return said


def _header(demo: Demo) -> str:
    first, data = demo.rows[0], demo.dataset.card
    none = demo.row("dimerec-none")
    tiles = (
        (text.percent(first.metrics[METRIC]), f"{METRIC.upper()} of {first.label}"),
        (text.percent(none.metrics[METRIC]), "the same without diffusion"),
        (f"{data.items:,}", f"films, {data.events:,} events"),
        (
            f"{first.evaluation.card.queries:,}",
            f"test queries of {first.evaluation.card.users} users",
        ),
        (text.duration(sum(demo.seconds.values())), "from raw data to this table"),
    )
    shown = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>'
        for value, what in tiles
    )
    return f"""<header>
<p class="eyebrow">DimeRec demo</p>
<h1>What will they watch next?</h1>
<p class="lead">{_formula(text.lead(demo))}</p>
<div class="tiles">{shown}</div>
</header>"""


def _comparison(page: _Page, demo: Demo) -> str:
    columns = {**COLUMNS, "coverage@20": "Coverage@20"}
    best = {m: max(r.metrics[m] for r in demo.rows) for m in COLUMNS}
    head = "".join(f"<th>{name}</th>" for name in columns.values())
    body = []
    for row in demo.rows:
        cells = "".join(
            f"<td{' class=best' * (row.metrics[m] == best.get(m))}>{100 * row.metrics[m]:.1f}</td>"
            for m in columns
        )
        colour = plots.MODELS.get(row.recipe, plots.GREY)
        mark = f'<span class="dot" style="background:{colour}"></span>'
        first = " class=first" if row is demo.rows[0] else ""
        body.append(f"<tr{first}><td>{mark}{_formula(row.label)}</td>{cells}</tr>")
    return _section(
        f"How often the next film is among the first {text.N}",
        page.plot(plots.comparison(demo), f"{METRIC.upper()} of each model"),
        _said(text.ranking(demo)),
        f'<div class="scroll"><table><thead><tr><th>percent</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>",
    )


def _showcase(demo: Demo, found: Findings) -> str:
    shown = found.showcase
    columns = [_list("Last watched, newest first", shown.recent, "var(--line)")]
    colours = {r.label: plots.MODELS.get(r.recipe, plots.GREY) for r in demo.rows}
    columns += [
        _list(f"{label} recommends", items, colours[label]) for label, items in shown.lists.items()
    ]
    return _section(
        "One viewer, two recommenders",
        _said(text.showcase(found)),
        f'<div class="grid">{"".join(columns)}</div>',
    )


def _list(title: str, items: list[Shown], colour: str) -> str:
    rows = "".join(
        f'<li><span class="title">{escape(i.title)}</span>'
        f"{'<span class=watched>watched later</span>' if i.hit else ''}"
        f'<span class="genres">{escape(", ".join(i.categories)) or "no genre"}</span></li>'
        for i in items
    )
    return (
        f'<div class="list" style="--edge:{colour}"><h3>{escape(title)}</h3><ol>{rows}</ol></div>'
    )


def _diffusion(page: _Page, demo: Demo, found: Findings) -> str:
    return _section(
        "What the diffusion adds",
        _said(text.diffusion(demo)),
        '<div class="grid">',
        f"<div><h3>{METRIC.upper()} by number of denoising steps</h3>",
        page.plot(plots.steps(demo, found), "Hit rate by number of denoising steps"),
        _said(text.steps(found)),
        f"</div><div><h3>{METRIC.upper()} along one chain of {len(found.chain.times)} steps</h3>",
        page.plot(plots.chain(found), "Hit rate along the denoising chain"),
        _said(text.chain(found)),
        "</div></div>",
    )


def _map(page: _Page, demo: Demo, found: Findings) -> str:
    return _section(
        "A map of the films, with one viewer on it",
        _said(text.map_of_items(found)),
        page.plot(plots.map_of_items(demo, found), "Item vectors in two dimensions"),
        _said(
            f"Rings: what user {found.showcase.user} watched. Diamonds: the "
            f"{len(found.interests)} interests DimeRec distils from it. Crosses: "
            f"{len(found.generated)} vectors the diffusion generates from them; the films nearest "
            "to their mean are recommended."
        ),
    )


def _categories(page: _Page, demo: Demo) -> str:
    return _section(
        "How mixed the lists are",
        _said(text.categories(demo)),
        page.plot(plots.categories(demo), f"Genres in lists of {SHORT} and of 100"),
    )


def _learning(page: _Page, demo: Demo, found: Findings) -> str:
    names = {"gem": "L_gem, guidance", "recon": "L_recon, reconstruction", "ssm": "L_ssm, ranking"}
    parts = [
        f"<div><h3>{_formula(names.get(name, name))}</h3>{page.plot(figure, name)}</div>"
        for name, figure in plots.losses(demo, found).items()
    ]
    return _section(
        "How the models learned",
        _said(f"The three losses of DimeRec: {text.losses(found)}"),
        f'<div class="grid">{"".join(parts)}</div>',
        f"<h3>{METRIC.upper()} on the validation users, every learned model</h3>",
        page.plot(plots.validation(demo, found), "Validation by training step"),
        _said(text.best_step(demo)),
    )


def _card(demo: Demo) -> str:
    pairs = "".join(f"<dt>{escape(k)}</dt><dd>{_formula(v)}</dd>" for k, v in text.card(demo))
    rows = "".join(
        f"<tr><td>{_formula(r.label)}</td><td>{f'{r.run.steps:,}' if r.learned else '–'}</td>"
        f"<td>{f'{r.run.parameters:,}' if r.learned else '–'}</td>"
        f"<td>{r.run.targets:,}</td><td>{r.run.cpu_seconds:.1f} s</td>"
        f"<td><code>{r.run.digest[:10]}</code></td></tr>"
        for r in demo.rows
    )
    return _section(
        "How this was measured",
        _said(demo.protocol()),
        f"<dl>{pairs}</dl>",
        '<div class="scroll"><table><thead><tr><th></th><th>steps</th><th>parameters</th>'
        "<th>targets seen</th><th>CPU time</th><th>weights</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>",
    )


def _plotly() -> str:
    """Plotly's own script, complete."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as e:
        raise ConfigError(
            "the report's figures need Plotly, which is not installed: pip install 'dimerec[plots]'"
        ) from e
    return get_plotlyjs()
