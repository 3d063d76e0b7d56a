"""V-SKNN: the items of the past sessions most like the current one.

Ludewig and Jannach, "Evaluation of Session-based Recommendation Algorithms", User Modeling and
User-Adapted Interaction 28, 2018; official code: github.com/rn5l/session-rec, `vsknn.py` and
`sknn.py`. Of the past sessions that share an item with the current one the most recent are looked
at, the most similar of those are the neighbours, and an item scores by the neighbours that hold it.

Where paper and code differ, this file follows the code, which made the published figures:
- Similarity is the weighted overlap divided by the number of the current session's distinct items;
  the code has a cosine too, which is not its default. S-KNN's own cosine is `cosine = true`.
- A repeated item has the weight of its last click; inverse frequencies count events, repeats too.
Where this file differs from the code:
- What it offers beside that is left out: dwelling times, decay by time, a user's own past sessions.
- A session is a training window: one longer than L + 1 events counts as several.
- Recency is the order of the training data, by user and time, as no time is given: right for
  sessions that are numbered in the order of time.
- Of equally similar sessions the more recent one comes first; the code leaves it to a hash.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dimerec.batch import SequenceBatch
from dimerec.config import Positive, Struct, Weight
from dimerec.model import Catalogue, CountingModel
from dimerec.nn.sparse import distinct, leading, spread

Decay = Literal["same", "div", "linear", "quadratic", "log"]
ENTRIES = 2**21  # pairs of a query and a session that are held at once


class Config(Struct, frozen=True):
    """V-SKNN's options; the defaults are those of the official code.

    Attributes:
        neighbours: k, sessions that vote.
        sample: only so many of the most recent sessions that share an item are looked at.
        weighting: how an item's place from the start of the session weighs in the similarity.
        score: how the vote of a neighbour falls with the place, counted from the end of the
            session, of the last item it shares.
        idf: an item's score is multiplied by 1 + idf * log(sessions / events of the item).
        cosine: divide the similarity by the square root of the neighbour's number of items.
    """

    neighbours: Positive = 100
    sample: Positive = 1000
    weighting: Decay = "div"
    score: Decay = "div"
    idf: Weight = 0.0
    cosine: bool = False


# Of place i (1 first) among n, and of place i from the end (1 last).
WEIGHTING: dict[Decay, Callable[[Tensor, Tensor], Tensor]] = {
    "same": lambda i, n: torch.ones_like(i),
    "div": lambda i, n: i / n,
    "linear": lambda i, n: (1 - 0.1 * (n - i)) * (i <= 10),
    "quadratic": lambda i, n: (i / n).square(),
    "log": lambda i, n: 1 / (n - i + 1.7).log10(),
}
SCORE: dict[Decay, Callable[[Tensor], Tensor]] = {
    "same": torch.ones_like,
    "div": lambda i: 1 / i,
    "linear": lambda i: (1 - 0.1 * i) * (i <= 100),
    "quadratic": lambda i: 1 / i.square(),
    "log": lambda i: 1 / (i + 1.7).log10(),
}


class Model(CountingModel):
    """score(i) = sum of similarity * decay over the neighbours that hold i.

    Sessions are kept as two sparse matrices in CSR form: the items of each session, and the
    sessions of each item with the most recent last.
    """

    first_item: Tensor
    items: Tensor
    first_session: Tensor
    sessions: Tensor
    lift: Tensor

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.config, self.size = config, catalogue.size
        self.register_buffer("first_item", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("items", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("first_session", torch.zeros(self.size + 1, dtype=torch.int64))
        self.register_buffer("sessions", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("lift", torch.ones(self.size))
        self._events = torch.zeros(self.size, dtype=torch.float64)
        self._seen: list[tuple[Tensor, Tensor]] = []  # (items, number of them) of some sessions

    def observe(self, batch: SequenceBatch) -> None:
        windows = torch.cat([batch.history, batch.targets[:, -1:]], dim=1)
        row, item, _ = distinct(windows, self.size)
        self._seen.append((item, torch.bincount(row, minlength=len(windows))))
        self._events += torch.bincount(windows[windows > 0], minlength=self.size)

    def finish(self) -> None:
        self.items = torch.cat([item for item, _ in self._seen])
        count = torch.cat([count for _, count in self._seen])
        self.first_item = F.pad(count.cumsum(0), (1, 0))
        session = torch.arange(len(count)).repeat_interleave(count)
        order = self.items.argsort(stable=True)
        self.sessions = session[order]
        self.first_session = torch.searchsorted(self.items[order], torch.arange(self.size + 1))
        rarity = (len(count) / self._events).log().masked_fill(self._events == 0, 0.0)
        self.lift = (1 + self.config.idf * rarity).float()

    def scores(self, history: Tensor, noise: Tensor) -> Tensor:
        row, item, _ = distinct(history, self.size)
        pairs = history.new_zeros(len(history)).index_add_(0, row, self._range(item)[1])
        _, rows = (pairs.cumsum(0) // ENTRIES).unique_consecutive(return_counts=True)
        return torch.cat([self._scores(part) for part in history.split(rows.tolist())])

    def neighbours(
        self, history: Int[Tensor, "B L"]
    ) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"], Float[Tensor, " N"]]:
        """Row, session and vote of the neighbours of all rows, the nearest first in each row."""
        config, total = self.config, len(self.first_item) - 1
        row, item, place = distinct(history, self.size)
        length = (history > 0).sum(1)[row]
        weight = WEIGHTING[config.weighting](place.double(), length.double())
        which, at = spread(*self._range(item))
        back = total - 1 - self.sessions[at]  # 0 is the most recent session
        keys, inverse = (row[which] * total + back).unique(return_inverse=True)
        overlap = weight.new_zeros(len(keys)).index_add_(0, inverse, weight[which])
        from_end = (length - place + 1)[which]
        nearest = keys.new_zeros(len(keys))
        nearest.scatter_reduce_(0, inverse, from_end, "amin", include_self=False)
        near, session = keys // total, total - 1 - keys % total
        similarity = overlap / torch.bincount(row, minlength=len(history))[near]
        if config.cosine:
            similarity /= (self.first_item[session + 1] - self.first_item[session]).sqrt()
        similarity = similarity.round(decimals=9)  # equal sums are equal in whatever order
        kept = (leading(near, config.sample) & (similarity > 0)).nonzero()[:, 0]
        kept = kept[similarity[kept].argsort(descending=True, stable=True)]
        kept = kept[near[kept].argsort(stable=True)]
        kept = kept[leading(near[kept], config.neighbours)]
        vote = similarity[kept] * SCORE[config.score](nearest[kept].double())
        return near[kept], session[kept], vote

    def _scores(self, history: Int[Tensor, "b L"]) -> Float[Tensor, "b V"]:
        row, session, vote = self.neighbours(history)
        first = self.first_item[session]
        which, at = spread(first, self.first_item[session + 1] - first)
        out = self.lift.new_zeros(len(history) * self.size)
        out.index_add_(0, row[which] * self.size + self.items[at], vote[which].float())
        return out.view(len(history), self.size) * self.lift

    def _range(self, item: Int[Tensor, " N"]) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"]]:
        """Where the most recent sessions of each item begin in `sessions`, and their number.

        No more of an item than `sample`: those of all items hold the most recent of their union.
        """
        stop = self.first_session[item + 1]
        count = (stop - self.first_session[item]).clamp_max(self.config.sample)
        return stop - count, count
