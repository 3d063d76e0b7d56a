"""What reading a training batch in pieces of like lengths saves, beside reading it padded at once.

The same models, batches and losses both ways, turn about in one process and on one thread, on the
lengths that real histories have. Prints CPU seconds a step (median of the turns) and their ratio,
and writes `results/pieces.json`.

    python benchmarks/bench_pieces.py [--turns 7]

The data is what the folder named by DIMEREC_DATA has of MovieLens 1M, Amazon Beauty and YooChoose
1/64; what it lacks is left out and named. MovieLens latest-small is always there.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
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
from dimerec.nn import pieces as module

LENGTHS = {"ml-latest-small": 200, "ml-1m": 200, "amazon-beauty": 50, "yoochoose-1-64": 10}
MODELS = {"sasrec": 128, "dreamrec": 128, "bert4rec": 128, "diffurec": 512}  # examples a step


def at_once(real: Tensor) -> Iterator[tuple[Tensor, slice]]:
    yield torch.arange(len(real)), slice(None)


def measure(dataset: Dataset, name: str, length: int, turns: int) -> dict[str, float]:
    """CPU seconds of a step, padded at once and in pieces."""
    recipe = config.load(name, [f"length={length}", f"training.batch_size={MODELS[name]}"])
    model_file = plugins.load("dimerec.models", recipe.model)
    with randomness.torch_scope(0, "init"):
        model = model_file.Model(recipe.model_config(), dataset.catalogue(length))
    batches = Batches(dataset, recipe, model.targets)
    adam = torch.optim.Adam(model.parameters(), lr=0.001)
    ways = {"at once": at_once, "in pieces": module.pieces}
    found: dict[str, list[float]] = {way: [] for way in ways}
    for step in range(turns + 1):  # the first one warms up
        batch = batches.batch(step)
        for way, cut in ways.items():
            start = time.process_time()
            with mock.patch.object(module, "pieces", cut):
                loss = model.loss(batch, randomness.torch_stream(0, "loss", step)).total
            adam.zero_grad()
            loss.backward()
            adam.step()
            found[way].append(time.process_time() - start)
    return {way: statistics.median(seconds[1:]) for way, seconds in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--turns", type=int, default=7)
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
                seconds = measure(dataset, name, length, given.turns)
                ratio = seconds["at once"] / seconds["in pieces"]
                results[source][name] = seconds | {"ratio": ratio}
                both = ", ".join(f"{s * 1e3:.0f} ms a step {way}" for way, s in seconds.items())
                print(f"{source}, {name}: {both}: {ratio:.2f} times as fast", flush=True)
    out = Path(__file__).parent / "results" / "pieces.json"
    out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
