"""docs/results/README.md: every committed table and figure, with its page and its main rows.

`python -m tests.tools.result_index` writes it; `--check` fails where it is another.
"""

import sys
from pathlib import Path
from statistics import mean

from dimerec.experiments import summary
from dimerec.experiments.units import scale, shown

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results" / "README.md"
ROWS = "SASRec", "DimeRec, paper recipe", "DimeRec, x_t = 0", "DimeRec"
HEAD = """# Results of the studies

Made by `make docs` from `results/*/*/results.json`; not edited by hand. Each link is a page with
data, protocol, budget, all rows and figures; the number is the table's first column, a mean over
seeds. [What holds of the paper, and what does not](../verdicts.md) says it in words, claim by claim;
[the results of the plans](../results.md) and [the cost](../cost.md) have pages of their own.
"""


def rendered() -> str:
    lines = [
        HEAD,
        f"| study | column | {' | '.join(ROWS)} | best row | seeds |",
        "| --- | --- |" + " ---: |" * len(ROWS) + " --- | ---: |",
    ]
    for file in sorted((ROOT / "results").glob("*/*/results.json")):
        made = summary.read(file)
        metric = made.metrics[0]
        values = {
            r.label: scale(metric) * mean(r.metrics[metric])
            for r in made.rows
            if metric in r.metrics
        }
        cells = " | ".join(f"{values[r]:.2f}" if r in values else "" for r in ROWS)
        seeds = sorted({len(row.seeds) for row in made.rows})
        link = f"[{made.title}](../../{file.parent.relative_to(ROOT)}/README.md)"
        counts = " to ".join(map(str, seeds[:: max(1, len(seeds) - 1)]))
        best = max(values, key=values.__getitem__)
        lines.append(f"| {link} | {shown(metric)} | {cells} | {best} | {counts} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    if "--check" in sys.argv:
        if not PAGE.is_file() or PAGE.read_text("utf-8") != rendered():
            print(f"{PAGE.relative_to(ROOT)}: run `python -m tests.tools.result_index`")
            return 1
    else:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(rendered(), "utf-8")
    print("result index: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
