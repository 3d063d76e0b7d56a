"""`dimerec audit`: is a dataset fit to be learned from and compared on?"""

from pathlib import Path
from typing import Annotated

import typer

from dimerec.cli import output
from dimerec.cli.output import Json

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def audit(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A folder prepare made.")],
    json: Json = False,
) -> None:
    """Check a dataset for leakage and for what makes results hard to read.

    Fails, with exit code 1, on leakage: the future in a history, evaluation
    users in training, sessions that stand in two parts, files changed since
    they were written. Warns, with numbers, of ties, repeats, bots, cold items
    and drift.

      dimerec audit data/ml
    """
    from rich.text import Text

    from dimerec.data import audit as checks
    from dimerec.data.dataset import Dataset

    found = checks.audit(Dataset.open(dataset))
    if json:
        output.document({"path": dataset, "level": found.level, **_plain(found)})
    else:
        width = max(len(f.name) for f in found.findings)
        console = output.out()
        for finding in found.findings:
            mark = Text(f"{finding.level:<5}", STYLES[finding.level])
            console.print(mark, f"{finding.name:<{width}} ", finding.message, soft_wrap=True)
        count = {level: sum(f.level == level for f in found.findings) for level in STYLES}
        output.line(
            f"{dataset}: {count['ok']} checks passed, {count['warn']} warn, {count['fail']} fail"
        )
    if found.level == "fail":
        raise typer.Exit(1)


def _plain(found: object) -> dict:
    import msgspec

    return msgspec.to_builtins(found)
