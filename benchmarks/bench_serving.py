"""How many requests a second does the service answer, and what becomes of it beyond that?

A real `dimerec serve` of DimeRec as the paper has it (T = 20, d = 64, K = 4), compiled by `dimerec
export`, over 100,000 made-up items, those of `bench_link.py`, with an index tuned to a recall@100
of 0.975 on histories of its own (`--exact` scores every item). A request holds a history of L ids
and gets the 20 best items; no store of histories takes part. The weights are drawn: the time does
not depend on their values.

`load.py`, another process on the same processors, sends requests at times fixed beforehand. First
the highest rate is searched at which p99 stays under 10 ms and nobody is refused. Then it sends 2
and 5 times as many, and a while of that rate's 80 % again after each. Asked for: goodput (answers
within the service's deadline) of at least 90 % of the first rate's, refusals by 429 or 503 with
Retry-After alone, memory that stays, and p99 under 10 ms again 2 s after. A measurement for which
the generator was late is void; it is made once more, and then counts as a rate too high.

Prints a table, writes `results/serving.json`, and exits with 1 where something asked for is not
there. Sends that are half the bound late are late.

    python benchmarks/bench_serving.py [--items N] [--length 10] [--bound MS] [--exact]
        [--eager] [--quick]
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil
import torch
from bench_link import TUNED, catalogue, histories, paper_model, queries_of

from dimerec import bundle, config
from dimerec.bundle import Bundle
from dimerec.retrieval.approximate import ApproximateIndex
from dimerec.retrieval.exact import ExactIndex
from dimerec.retrieval.tuning import Tuned, tune
from dimerec.vocabulary import Item, Vocabulary

BOUND_MS = 10.0
OVERLOADS = (2, 5)
GOODPUT, SETTLE = 0.9, 2.0  # share of the peak's; seconds after an overload
GROWTH_MB = 32.0
DEADLINE = 1.0  # seconds, the service's default
DIMEREC = [sys.executable, "-m", "dimerec"]


def write_bundle(folder: Path, items: int, length: int, exact: bool) -> tuple[Path, Tuned | None]:
    """The bundle to serve with its index, and beside it `asks.jsonl`, the bodies to send."""
    recipe = msgspec.structs.replace(config.load("dimerec-paper"), length=length)
    vectors = catalogue(items + 1, recipe.model_config().width)
    model = paper_model(vectors, length)
    counts = torch.ones(items + 1)
    counts[0] = 0
    bundle.write(
        folder / "bundle",
        model=model,
        config=recipe,
        vocabulary=Vocabulary(range(items)),
        items=[Item()] * items,
        counts=counts,
        origin={"dataset": "made up", "digest": "0" * 64, "protocol": "none"},
    )
    tastes = histories(ExactIndex.build(vectors.numpy()), length, 1200)
    # An id is its number less 1.
    lines = [json.dumps({"history": ids}) for ids in (tastes[:1000] - 1).tolist()]
    (folder / "asks.jsonl").write_text("\n".join(lines) + "\n")
    if exact:
        return folder / "bundle", None
    index = ApproximateIndex.build(vectors.numpy())
    tuned = tune(index, queries_of(model, tastes[1000:]), TUNED)
    index.save(Bundle.open(folder / "bundle").index_path)
    return folder / "bundle", tuned


@contextmanager
def serving(path: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A running service: its URL and process."""
    words = ["serve", path, "--port", "0", "--store", "memory:", "--set", "drain=0"]
    with subprocess.Popen([*DIMEREC, *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r" at (http://\S+)$", line.rstrip()):
                    url = found.group(1)
                if "routes" in line:
                    break
            else:
                raise SystemExit("the service did not start")
            yield url, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


class Load:
    """Measurements of one service."""

    def __init__(self, url: str, bodies: Path, bound: float, quick: bool) -> None:
        self._words = [sys.executable, Path(__file__).with_name("load.py"), url]
        self._bodies = bodies
        self.bound = bound
        self._seconds = 1.0 if quick else 3.0
        self._count = 0
        self.quick = quick

    def run(self, *steps: tuple[float, float]) -> dict:
        """What `load.py` reports of (rate, seconds)."""
        self._count += 1
        words = ["--steps", *(f"{rate:.1f}x{seconds:g}" for rate, seconds in steps)]
        words += ["--bodies", self._bodies, "--seed", str(self._count)]
        words += ["--late", str(self.bound / 2000)]
        done = subprocess.run(
            [*self._words, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        )
        return json.loads(done.stdout)

    def holds(self, rate: float, seconds: float) -> dict | None:
        """The measurement of a rate if its p99 is under the bound and nobody is refused."""
        for _ in range(2):
            found = self.run((rate, seconds))
            if not found["void"]:
                break
        row = found["steps"][0]
        good = row["good"] == row["sent"] and row["p99_ms"] is not None
        fine = not found["void"] and good and row["p99_ms"] < self.bound
        why = "" if fine else f" ({found['void'] or str(row['refused']) + ' refused'})"
        print(f"{rate:>7,.0f}/s: p99 {row['p99_ms'] or 0:.1f} ms{why}", flush=True)
        return row if fine else None

    def peak(self) -> dict:
        """The measurement at the highest rate that holds; SystemExit when none does."""
        self.run((50, 1))  # warm
        low, high = 0.0, 50.0
        while self.holds(high, self._seconds) and high < 20_000:
            low, high = high, 2 * high
        for _ in range(2 if self.quick else 4):
            middle = (low * high) ** 0.5 if low else high / 2
            if self.holds(middle, self._seconds):
                low = middle
            else:
                high = middle
        for _ in range(6 if low else 0):
            if found := self.holds(low, 3 * self._seconds):
                return found
            low *= 0.9
        raise SystemExit(f"p99 is over {self.bound:g} ms at any rate; is the machine busy?")


def beyond(load: Load, peak: dict, times: int, process: psutil.Process) -> dict:
    """What happens at some times the peak's rate, and after it."""
    seconds, rate = (2.0 if load.quick else 6.0), peak["rate"]
    before = process.memory_info().rss / 2**20
    for _ in range(2):
        found = load.run((times * rate, seconds), (0.8 * rate, SETTLE), (0.8 * rate, seconds / 2))
        if not found["void"]:
            break
    over, _, after = found["steps"]
    wrong = {s: n for s, n in over["statuses"].items() if s not in ("200", "429", "503")}
    share = over["goodput"] / peak["goodput"]
    grown = process.memory_info().rss / 2**20 - before
    back = after["good"] == after["sent"] and after["p99_ms"] < load.bound
    asked = {
        f"goodput at least {GOODPUT:.0%} of the peak's": share >= GOODPUT,
        "refusals are 429 or 503": not wrong,
        "with Retry-After": not over["refused_without_retry_after"],
        f"memory grows by less than {GROWTH_MB:g} MB": grown < GROWTH_MB,
        f"p99 under {load.bound:g} ms again {SETTLE:g} s after": back,
        "the generator was never late": not found["void"],
    }
    return {
        "times": times,
        "goodput_of_peak": round(share, 3),
        "memory_mb": [round(before, 1), round(before + grown, 1)],
        "asked": asked,
        "void": found["void"],
        "generator_s": found["processor_s"],
        "over": over,
        "after": after,
    }


def show(peak: dict, rows: list[dict]) -> None:
    print("\n| load | sent/s | goodput/s | of peak | p50 ms | p99 ms | p99.9 ms | refused p99 |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    lines = [
        ("peak", peak, 1.0),
        *((f"{r['times']}x", r["over"], r["goodput_of_peak"]) for r in rows),
    ]
    for name, row, share in lines:
        times = [row[f"{q}_ms"] for q in ("p50", "p99", "p99.9", "refused_p99")]
        shown = " | ".join("" if t is None else f"{t:,.1f}" for t in times)
        print(f"| {name} | {row['rate']:,.0f} | {row['goodput']:,.0f} | {share:.0%} | {shown} |")
    for row in rows:
        for what, there in row["asked"].items():
            print(f"{row['times']}x: {what}: {'yes' if there else 'NO'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--length", type=int, default=10)
    parser.add_argument("--bound", type=float, default=BOUND_MS, help="ms that p99 must keep to")
    parser.add_argument("--exact", action="store_true", help="score every item")
    parser.add_argument("--eager", action="store_true", help="do not compile the model")
    parser.add_argument("--quick", action="store_true", help="short and rough; judges nothing")
    out = Path(__file__).parent / "results" / "serving.json"
    parser.add_argument("--out", type=Path, default=out)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, tuned = write_bundle(folder, given.items, given.length, given.exact)
        if tuned:
            print(f"index: recall {tuned.recall:.3f} with {tuned.probes} cells", flush=True)
        if not given.eager:
            subprocess.run([*DIMEREC, "export", path], check=True, stdout=subprocess.DEVNULL)
        with serving(path) as (url, process):
            load = Load(url, folder / "asks.jsonl", given.bound, given.quick)
            peak = load.peak()
            rows = [beyond(load, peak, times, process) for times in OVERLOADS]
    show(peak, rows)
    result = {
        "items": given.items,
        "length": given.length,
        "compiled": not given.eager,
        "probes": tuned.probes if tuned else None,
        "recall@100": round(tuned.recall, 4) if tuned else 1.0,
        "bound_ms": given.bound,
        "deadline_s": DEADLINE,
        "peak": peak,
        "beyond": rows,
        "load": round(os.getloadavg()[0], 1),
        "machine": {
            "processor": platform.machine(),
            "cpus": os.cpu_count(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    fine = all(there for row in rows for there in row["asked"].values())
    sys.exit(0 if fine or given.quick else 1)


if __name__ == "__main__":
    main()
