"""What one step of the full softmax costs: logits in pieces, against all of them at once.

The reference makes the logits of all rows in one tensor, leaves padding and the target out of the
sum, as this package did before. One thread; forward and backward, CPU seconds, the best of some
turns. Prints both and their ratio, and writes `results/softmax.json`.

    python benchmarks/bench_softmax.py [--rows 3700] [--width 64] [--turns 5]
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dimerec import randomness
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.nn.losses import Candidates, SoftmaxConfig, softmax_loss

CATALOGUES = (3_417, 12_102)  # of ML-1M and Amazon Beauty, with padding


def whole(items: ItemEmbedding, queries: Tensor, targets: Tensor) -> Tensor:
    """The loss with all logits at once."""
    table = items.table()
    positive = (queries * F.embedding(targets, table)).sum(-1)
    others = queries @ table.T
    others[:, 0] = -torch.inf
    others[torch.arange(len(others)), targets] = -torch.inf
    return F.softplus(others.logsumexp(-1) - positive).mean()


def pieces(items: ItemEmbedding, queries: Tensor, targets: Tensor) -> Tensor:
    """The package's."""
    none = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    candidates = Candidates(SoftmaxConfig(), items, targets, *none)
    return softmax_loss(candidates, queries.unsqueeze(1))


def seconds(step: Callable[[], Tensor], turns: int) -> tuple[float, float]:
    """Least CPU seconds of a step and its backward pass, and the loss."""
    found, value = [], 0.0
    for _ in range(turns + 1):  # the first one warms up
        start = time.process_time()
        loss = step()
        loss.backward()
        found.append(time.process_time() - start)
        value = float(loss.detach())
    return min(found[1:]), value


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=3700)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    results = {"rows": given.rows, "width": given.width, "catalogues": {}}
    for size in CATALOGUES:
        with randomness.torch_scope(0, "init"):
            items = ItemEmbedding(size, given.width)
            queries = torch.randn(given.rows, given.width).requires_grad_()
            targets = torch.randint(1, size, (given.rows,))
        before, lost = seconds(partial(whole, items, queries, targets), given.turns)
        after, same = seconds(partial(pieces, items, queries, targets), given.turns)
        assert abs(lost - same) < 1e-4 * lost
        results["catalogues"][size] = {"whole": before, "pieces": after, "ratio": before / after}
        print(f"{size:,} items: {before:.3f} s at once, {after:.3f} s in pieces: "
              f"{before / after:.1f} times as fast")  # fmt: skip
    out = Path(__file__).parent / "results" / "softmax.json"
    out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
