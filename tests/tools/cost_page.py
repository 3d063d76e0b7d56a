"""The tables and the figure of docs/cost.md, from what `benchmarks/bench_cost.py` last measured.

`python -m tests.tools.cost_page` writes them; `--check` fails where the page is another.
"""

import json
import sys
from pathlib import Path
from typing import Any

from dimerec.evaluation.plots import COLOURS, svg
from dimerec.experiments.charts import legend
from tests.tools import marked

ROOT = Path(__file__).parents[2]
PAGE, FIGURE = ROOT / "docs" / "cost.md", ROOT / "docs" / "cost.svg"
RESULT = ROOT / "benchmarks" / "results" / "cost.json"
COLUMNS = {
    "parameters": "parameters",
    "other_parameters": "without items",
    "gem_us": "interests",
    "chain_us": "chain",
    "training_us": "training step",
}
MEANING = {
    "d": "width",
    "L": "length of the history",
    "K": "interests",
    "T": "reverse steps",
    "V": "items",
}


def result() -> dict[str, Any]:
    return json.loads(RESULT.read_text("utf-8"))


def tables(found: dict[str, Any]) -> str:
    machine = found["machine"]
    middle = ", ".join(f"{letter} = {value:,}" for letter, value in found["middle"].items())
    lines = [
        f"The middle: {middle}. Machine: {machine['processor']} with {machine['cpus']} processors, "
        f"{machine['capability']},",
        f"one thread, PyTorch {machine['torch']}, load {found['load']} (1 is this benchmark alone).",
        "",
        "![Time of interests and chain against each setting](cost.svg)",
    ]
    for letter, meaning in MEANING.items():
        lines += [
            "",
            f"| {letter}, {meaning} | {' | '.join(COLUMNS.values())} |",
            "| ---: |" + " ---: |" * len(COLUMNS),
        ]
        for row in found["rows"]:
            if row["moved"] == letter:
                cells = " | ".join(f"{row[name]:,.0f}" for name in COLUMNS)
                lines.append(f"| {row['value']:,} | {cells} |")
        cells = " | ".join(f"{found['exponents'][letter][name]:.2f}" for name in COLUMNS)
        lines.append(f"| *exponent* | {cells} |")
    return "\n".join(lines)


def figure(found: dict[str, Any]) -> bytes:
    """Each setting from smallest to largest, as a multiple of the middle; both axes logarithmic."""

    def paint(axes: Any) -> None:
        for letter, colour in zip(MEANING, COLOURS * 2, strict=False):
            rows = [row for row in found["rows"] if row["moved"] == letter]
            x = [row["value"] / found["middle"][letter] for row in rows]
            axes.plot(x, [row["chain_us"] for row in rows], color=colour, marker="o",
                      markersize=3, label=f"{letter}, {MEANING[letter]}")  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("setting, as a multiple of the middle one")
        axes.set_ylabel("one query by all T steps, microseconds")
        legend(axes)

    return svg(paint, (7.0, 4.2))


def rendered() -> str:
    return marked.replaced(PAGE.read_text("utf-8"), "cost", tables(result()))


def main() -> int:
    if "--check" in sys.argv:
        if PAGE.read_text("utf-8") != rendered():
            print(f"{PAGE.relative_to(ROOT)}: run `python -m tests.tools.cost_page`")
            return 1
    else:
        PAGE.write_text(rendered(), "utf-8")
        FIGURE.write_bytes(figure(result()))
    print("cost page: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
