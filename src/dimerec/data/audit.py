"""Leakage and quality audit of a prepared dataset, with numbers.

What fails is leakage, or data whose meaning is broken; what only makes results harder to read or
to compare warns. Checks that need event times are passed over where there are none.
"""

import msgspec

from dimerec.data import leakage, quality
from dimerec.data.dataset import Dataset
from dimerec.data.findings import Finding, Level
from dimerec.data.splits import times_are_positions


class Audit(msgspec.Struct, frozen=True):
    """All findings on a dataset."""

    dataset: str
    digest: str
    findings: tuple[Finding, ...]

    @property
    def level(self) -> Level:
        """The worst level of the findings."""
        levels = [f.level for f in self.findings]
        return "fail" if "fail" in levels else "warn" if "warn" in levels else "ok"


def audit(dataset: Dataset) -> Audit:
    """Check `dataset` for leakage and quality; every event is read a few times."""
    checks = [leakage.content, leakage.order, leakage.boundaries, leakage.duplicates]
    if not times_are_positions(dataset.offsets, dataset.times):
        checks += [leakage.future, quality.ties]
    elif dataset.card.protocol.name == "sessions-in-order":
        checks.append(leakage.future)
    checks += [quality.queries, quality.repeats, quality.cold, quality.drift, quality.bots]
    return Audit(dataset.card.name, dataset.digest, tuple(check(dataset) for check in checks))
