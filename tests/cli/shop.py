"""A small shop's log as somebody else would have written it, and what must become of it."""

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

DIMEREC = Path(sys.executable).with_name("dimerec")
ITEMS = 20
USERS = 40
SKUS = [f"sku-{i:02d}" for i in range(ITEMS)]
COLUMNS = "user=visitor,item=product code,time=clicked at"


def events() -> dict[str, list[str]]:
    """User id -> items in order: people walk along the shelf, and jump now and then."""
    random = Random(7)
    walks = {}
    for u in range(USERS):
        at = random.randrange(ITEMS)
        walk = walks[f"visitor/{u:03d}"] = [SKUS[at]]
        for _ in range(random.randint(5, 11)):
            at = (at + random.choice([1, 1, 1, 1, 7])) % ITEMS
            walk.append(SKUS[at])
    return walks


def write_log(path: Path) -> Path:
    """Other column names, string ids, milliseconds, rows in no order, gzipped."""
    rows = [
        (1_700_000_000_000 + 1000 * (97 * u + 5003 * step) + 7, "web", user, item)
        for u, (user, items) in enumerate(events().items())
        for step, item in enumerate(items)
    ]
    Random(1).shuffle(rows)
    with gzip.open(path, "wt", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow(["clicked at", "channel", "visitor", "product code"])
        writer.writerows(rows)
    return path


def write_items(path: Path) -> Path:
    """Titles (with what a terminal's markup might trip over) and categories."""
    with path.open("w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow(["sku", "title", "category"])
        writer.writerows([s, f"Thing [red] {s[-2:]} é", "odd|all"] for s in SKUS)
    return path


def dimerec(*words: object, code: int = 0, cwd: Path | None = None, **more: Any) -> str:
    """Standard output of a real `dimerec` process that must end with `code`."""
    done = subprocess.run(
        [DIMEREC, *map(str, words)], capture_output=True, text=True, timeout=240, cwd=cwd, **more
    )
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


def document(*words: object, **more: Any) -> Any:
    """The one JSON document on a process's standard output."""
    return json.loads(dimerec(*words, "--json", **more))
