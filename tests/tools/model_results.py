"""What the result files say of each model, in the last section of its page.

`python -m tests.tools.model_results` writes it into docs/models/*.md; `--check` fails where a page
is not the one that would be written.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean, stdev

from dimerec import config
from dimerec.experiments import plan as plans
from dimerec.experiments import runner, study
from dimerec.experiments.plan import Plan, RunPlan
from dimerec.experiments.tables import by_label
from tests.tools import marked

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "models"
STUDIES = "table1", "related"
SHOWN = "hr@10", "ndcg@10", "hr@20", "ndcg@20"


@dataclass(frozen=True)
class Source:
    """A plan with results: its page, seen from docs/models, and what it is called there."""

    plan: Plan
    results: Path
    page: str
    name: str


@cache
def sources() -> tuple[Source, ...]:
    """Every study and plan that has results."""
    found = []
    for name in STUDIES:
        made = study.load(name)
        for dataset, data in made.datasets.items():
            for budget in data.epochs:
                where = f"results/{name}/{dataset}-{budget}"
                if (file := ROOT / where / "results.jsonl").is_file():
                    plan = study.resolve(made, dataset, budget)
                    title = f"{made.title}, {dataset}, {budget}"
                    found.append(Source(plan, file, f"../../{where}/README.md", title))
    for path in sorted((ROOT / "experiments").glob("*.toml")):
        file = ROOT / "results" / f"{path.stem}.jsonl"
        if file.is_file():
            plan = plans.load(path)
            found.append(Source(plan, file, "../results.md", plan.title))
    return tuple(found)


@cache
def rows() -> tuple[tuple[str, Source, RunPlan, tuple[runner.Result, ...]], ...]:
    """Model, source, row and its results, wherever there are any."""
    found = []
    for source in sources():
        labels = by_label(source.plan, runner.current(source.plan, source.results))
        for run in source.plan.runs:
            if results := labels[run.label]:
                model = config.load(run.config).model
                found.append((model, source, run, tuple(results)))
    return tuple(found)


def of(model: str) -> Iterator[tuple[Source, RunPlan, tuple[runner.Result, ...]]]:
    return ((s, run, results) for name, s, run, results in rows() if name == model)


def cell(results: tuple[runner.Result, ...], metric: str) -> str:
    """Mean and standard deviation over seeds, in percent."""
    values = [100 * r.metrics[metric] for r in results if metric in r.metrics]
    if not values:
        return ""
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def section(model: str) -> str:
    """Its rows in all tables, and then beside published figures of the same split."""
    found = list(of(model))
    if not found:
        return "None is committed yet."
    lines = [
        "In percent on the test split, mean ± standard deviation over seeds; each page states data,",
        "protocol and budget, and has the other models beside it.",
        "",
        "| table | row | HR@10 | NDCG@10 | HR@20 | NDCG@20 | seeds |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for source, run, results in found:
        cells = " | ".join(cell(results, metric) for metric in SHOWN)
        lines.append(f"| [{source.name}]({source.page}) | {run.label} | {cells} | {len(results)} |")
    beside = []
    for _, run, results in found:
        for target in run.published:
            for metric, share in target.metrics.items():
                off = mean(r.metrics[metric] for r in results) / share - 1
                beside.append(
                    f"| {run.label} | {metric.upper()} | {cell(results, metric)} | "
                    f"{100 * share:.2f} | {100 * off:+.1f} % | {target.source} |"
                )
    if beside:
        lines += [
            "",
            "Beside published figures of the same data and split; [the results](../results.md) say "
            "what differs",
            "where they do:",
            "",
            "| row | metric | here | published | difference | source |",
            "| --- | --- | ---: | ---: | ---: | --- |",
            *beside,
        ]
    else:
        lines += ["", "Not held against a published figure of the same data and split here."]
    others = {
        f"[{source.name}]({source.page})": None
        for source, run, _ in found
        if run.label in {row.label for row in source.plan.published}
    }
    if others:
        lines += [
            "",
            "The DimeRec paper's figures for it, of other data, stand beside ours in:",
            "",
        ]
        lines += [f"- {page}" for page in others]
    return "\n".join(lines)


def rendered(page: Path) -> str:
    """The page with its results in their place."""
    return marked.replaced(page.read_text("utf-8"), "results", section(page.stem))


def main() -> int:
    stale = []
    for page in sorted(PAGES.glob("*.md")):
        text = rendered(page)
        if "--check" not in sys.argv:
            page.write_text(text, "utf-8")
        elif page.read_text("utf-8") != text:
            stale.append(f"{page.relative_to(ROOT)}: run `python -m tests.tools.model_results`")
    print("\n".join(stale) or "model results: ok")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
