"""What reading a batch in pieces of like lengths saves, beside reading it padded at once.

The same models and batches both ways, turn about in one process and on one thread, on the lengths
that real histories have: steps of training, and queries made for test histories as evaluation makes
them. Prints CPU seconds (median of the turns) and their ratio, and writes `results/pieces.json`.

    python benchmarks/bench_pieces.py [--turns 5]

The data is what the folder named by DIMEREC_DATA has of MovieLens 1M, Amazon Beauty and YooChoose
1/64; what it lacks is left out and named. MovieLens latest-small is always there. DiffuRec, by far
the slowest, runs 4 of its 32 reverse steps, and is left out where histories have 200 items.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from dimerec import config, plugins, randomness
from dimerec.data import sources
from dimerec.data.batches import Batches
from dimerec.data.dataset import Dataset
from dimerec.data.prepare import prepare
from dimerec.errors import DataError
from dimerec.evaluation.ranking import evaluating, inputs
from dimerec.nn import pieces

LENGTHS = {"ml-latest-small": 200, "ml-1m": 200, "amazon-beauty": 50, "yoochoose-1-64": 10}
MODELS = {"sasrec": 128, "dreamrec": 128, "bert4rec": 128, "diffurec": 512}  # examples a step


WAYS: dict[str, Callable[[Tensor], bool]] = {
    "at once": lambda real: True,
    "in pieces": pieces.whole,
}
QUERIES = 512  # encoded at once, as in `evaluate`
Seconds = dict[str, float]


def measure(dataset: Dataset, name: str, length: int, turns: int) -> tuple[Seconds, Seconds]:
    """CPU seconds of a training step and of `QUERIES` queries, both ways."""
    changes = [f"length={length}", f"training.batch_size={MODELS[name]}"]
    recipe = config.load(name, changes + ["options.steps=4"] * (name == "diffurec"))
    model_file = plugins.load("dimerec.models", recipe.model)
    with randomness.torch_scope(0, "init"):
        model = model_file.Model(recipe.model_config(), dataset.catalogue(length))
    batches = Batches(dataset, recipe, model.targets)
    adam = torch.optim.Adam(model.parameters(), lr=0.001)
    queries = dataset.queries("test", "last")
    found: dict[str, tuple[list[float], list[float]]] = {way: ([], []) for way in WAYS}
    for turn in range(turns + 1):  # the first one warms up
        batch = batches.batch(turn)
        part = slice(turn * QUERIES, (turn + 1) * QUERIES)
        part = part if part.stop <= len(queries) else slice(0, min(QUERIES, len(queries)))
        history, noise = inputs(model, queries, part, length, 0, "cpu")
        for way, whole in WAYS.items():
            with mock.patch.object(pieces, "whole", whole):
                start = time.process_time()
                loss = model.loss(batch, randomness.torch_stream(0, "loss", turn)).total
                adam.zero_grad()
                loss.backward()
                adam.step()
                found[way][0].append(time.process_time() - start)
                with evaluating(model, "cpu"):
                    start = time.process_time()
                    model.encode(history, noise)
                    found[way][1].append(time.process_time() - start)
    step, encoded = (
        {way: statistics.median(both[which][1:]) for way, both in found.items()} for which in (0, 1)
    )
    return step, encoded


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, dict] = {}
    for source, length in LENGTHS.items():
        try:
            log = sources.read(source).log
        except DataError as e:
            print(f"{source} is left out: {e}")
            continue
        results[source] = {"length": length}
        with tempfile.TemporaryDirectory() as folder:
            dataset = prepare(log, Path(folder) / "data")
            for name in MODELS:
                if name == "diffurec" and length == 200:
                    continue
                both = measure(dataset, name, length, given.turns)
                results[source][name] = {}
                for what, seconds in zip(("step", f"{QUERIES} queries"), both, strict=True):
                    ratio = seconds["at once"] / seconds["in pieces"]
                    results[source][name][what] = seconds | {"ratio": ratio}
                    said = ", ".join(f"{s * 1e3:.0f} ms {way}" for way, s in seconds.items())
                    print(
                        f"{source}, {name}, {what}: {said}: {ratio:.2f} times as fast", flush=True
                    )
    out = Path(__file__).parent / "results" / "pieces.json"
    out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
