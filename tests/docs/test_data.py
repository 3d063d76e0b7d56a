"""The tables of docs/data.md say what the sources and the columns' usual names are."""

import re

from dimerec.data import sources
from dimerec.data.columns import ALIASES
from tests.tools.doc_examples import ROOT

PAGE = (ROOT / "docs" / "data.md").read_text("utf-8")
ROWS = [
    [c.strip() for c in line.strip("|").split("|")] for line in PAGE.splitlines() if "|" in line
]


def test_public_datasets() -> None:
    told = {}
    for row in ROWS:
        if len(row) == 6 and (name := re.fullmatch(r"`([\w-]+)`", row[0])):
            told[name[1]] = (*(int(c.replace(",", "")) for c in row[1:4]), row[4])
    assert set(told) == {source.name for source in sources.all()}
    for source in sources.all():
        *counts, download = told[source.name]
        assert counts == [source.counts.events, source.counts.users, source.counts.items]
        if source.size:
            assert download.startswith(f"{source.size / 1e6:.0f} MB"), source.name
        else:
            assert "MB" not in download, source.name
            assert ("by hand" in download or "layout" in download) == (
                not source.remotes and source.embedded is None
            ), source.name


def test_terms_are_those_of_the_sources() -> None:
    for source in sources.all():
        if source.licence.startswith("CC"):
            licence = source.licence.partition(":")[0]
            assert any(row[0] == f"`{source.name}`" and row[-1] == licence for row in ROWS)


def test_usual_names_of_columns() -> None:
    told = {row[0]: tuple(row[1].split(", ")) for row in ROWS if row[0] in ALIASES}
    assert told == ALIASES
