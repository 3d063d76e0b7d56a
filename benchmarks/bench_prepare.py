"""How long and how much memory does preparing a log take, from one to ten million events?

Each size runs in a fresh process: a CSV of Zipf-distributed items, in random
order, is read and prepared. Prints a table, writes `results/prepare.json`, and exits with 1 when
ten million events need 4 GiB or the time grows faster than linearly.

    python benchmarks/bench_prepare.py [--events 1000000 3000000 10000000]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

EVENTS = (1_000_000, 3_000_000, 10_000_000)
LIMIT_MB = 4096
STRETCH = 1.3  # CPU time per event may grow so much, smallest to largest (n log n: 1.17)
ITEMS = 100_000
EVENTS_A_USER = 20


def generate(path: Path, events: int) -> None:
    """Write a CSV of `events` random events: uniform users, Zipf items, one year in ms."""
    import polars as pl

    rng = np.random.default_rng(0)
    weights = 1.0 / np.arange(1, ITEMS + 1)
    edges = np.cumsum(weights) / weights.sum()
    frame = pl.DataFrame(
        {
            "userId": rng.integers(0, events // EVENTS_A_USER, events),
            "itemId": np.searchsorted(edges, rng.random(events)),
            "timestamp": 1_600_000_000_000 + rng.integers(0, 31_536_000_000, events),
        }
    )
    if path.name.startswith("strings"):
        frame = frame.with_columns(
            pl.format("user-{}", "userId").alias("userId"),
            pl.format("item-{}", "itemId").alias("itemId"),
        )
    frame.write_csv(path)


def measure(source: Path) -> dict[str, float]:
    """Read and prepare `source` in this process; seconds, CPU seconds and peak resident MB."""
    from dimerec.data.interactions import InteractionLog
    from dimerec.data.prepare import prepare

    start = time.perf_counter()
    log = InteractionLog.read(source)
    read = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        dataset = prepare(log, Path(folder) / "dataset", min_item_events=5)
        end = time.perf_counter()
        kept = dataset.card.events
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "events": len(log),
        "kept": kept,
        "read_seconds": round(read - start, 3),
        "prepare_seconds": round(end - read, 3),
        "seconds": round(end - start, 3),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
        "peak_mb": round(usage.ru_maxrss / 1024),
    }


def main() -> int:
    """Run the sizes asked for, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=list(EVENTS))
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--generate", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.generate:
        generate(asked.generate, asked.events[0])
        return 0
    if asked.measure:
        print(json.dumps(measure(asked.measure)))
        return 0
    rows = []
    print(
        f"{'ids':>8} {'events':>12} {'seconds':>8} {'CPU s':>8} {'peak MB':>8} {'CPU us/event':>13}"
    )
    for ids in ("integers", "strings"):
        for events in sorted(asked.events):
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder) / f"{ids}.csv"
                me = [sys.executable, __file__]
                size = ["--events", str(events)]
                subprocess.run([*me, "--generate", str(source), *size], check=True)
                done = subprocess.run(
                    [*me, "--measure", str(source)], check=True, capture_output=True, text=True
                )
            row = {"ids": ids, **json.loads(done.stdout)}
            row["us_per_event"] = round(row["cpu_seconds"] / events * 1e6, 3)
            rows.append(row)
            print(
                f"{ids:>8} {events:>12,} {row['seconds']:>8.2f} {row['cpu_seconds']:>8.2f} "
                f"{row['peak_mb']:>8} {row['us_per_event']:>13.2f}",
                flush=True,
            )
    stretch = {}
    for ids in ("integers", "strings"):
        mine = [r for r in rows if r["ids"] == ids]
        stretch[ids] = round(mine[-1]["us_per_event"] / mine[0]["us_per_event"], 3)
    held = max(r["peak_mb"] for r in rows) < LIMIT_MB and max(stretch.values()) <= STRETCH
    print(f"CPU time per event, largest over smallest size: {stretch} (limit {STRETCH})")
    print(f"under {LIMIT_MB} MB and linear: {held}")
    report = {
        "question": "seconds and peak memory of preparing a log",
        "machine": machine(),
        "rows": rows,
        "stretch": stretch,
        "held": held,
    }
    out = Path(__file__).parent / "results" / "prepare.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if held else 1


def machine() -> dict[str, Any]:
    """Where the figures were taken; a load above the cores says that wall seconds are too long."""
    import os
    import platform

    import polars as pl

    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [n for n in info.read_text().splitlines() if n.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load": [round(x, 1) for x in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "polars": pl.__version__,
    }


if __name__ == "__main__":
    sys.exit(main())
