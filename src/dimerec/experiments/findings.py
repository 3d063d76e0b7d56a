"""Everything the demo's report shows beyond the table, computed once from the bundles."""

from dataclasses import dataclass

import msgspec
import numpy as np

from dimerec.data.dataset import Dataset
from dimerec.evaluation.evaluator import Evaluation
from dimerec.experiments.demo import Demo
from dimerec.experiments.denoising import Chain, along_chain, by_steps
from dimerec.experiments.showcase import Map, Showcase, item_map, showcase, typical, vectors

STEPS = (1, 2, 5, 10, 20)
CHAIN_QUERIES, MAP_ITEMS, NEIGHBOURS = 1500, 1000, 10
GROUPS = 8  # colours of the map


@dataclass(frozen=True)
class Curves:
    """What one learned model's `metrics.jsonl` holds.

    Attributes:
        steps: of each logged stretch.
        losses: by name, as long as `steps`.
        validation: (step, metrics) of each validation.
    """

    steps: list[int]
    losses: dict[str, list[float]]
    validation: list[tuple[int, dict[str, float]]]


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Whether near items are alike, in the full space.

    Attributes:
        alike: share of an item's nearest neighbours that have its group.
        chance: the share that random items have.
    """

    alike: float
    chance: float


@dataclass(frozen=True, eq=False)
class Findings:
    """What is shown.

    Attributes:
        curves: by recipe, of the models that learned.
        steps: evaluation of DimeRec with each number of reverse steps.
        showcase: one user and two lists.
        map: the plane of DimeRec's item vectors.
        groups: a group for each item of the map; "" where it has none.
        interests, generated: of the showcase's user, unit vectors `[K, d]` and `[S, d]`.
    """

    curves: dict[str, Curves]
    steps: dict[int, Evaluation]
    chain: Chain
    showcase: Showcase
    map: Map
    groups: list[str]
    neighbours: Neighbours
    interests: np.ndarray
    generated: np.ndarray


def findings(demo: Demo, model: str = "dimerec", beside: str = "sasrec") -> Findings:
    """All of them, for the recipe `model`; the showcase has lists of `model` and `beside`."""
    bundle, dataset = demo.bundle(model), demo.dataset
    positions, seed = demo.settings.positions, demo.seed
    plane = item_map(bundle, MAP_ITEMS)
    groups = main_categories(dataset, plane.numbers)
    two = {demo.row(r).label: demo.bundle(r) for r in (model, beside)}
    shown = showcase(dataset, two, typical(dataset), seed)
    interests, generated = vectors(bundle, shown.history, seed)
    total = bundle.config.model_config().schedule.steps
    return Findings(
        curves={r.recipe: curves(demo, r.recipe) for r in demo.rows if r.learned},
        steps=by_steps(
            bundle, dataset, [s for s in STEPS if s <= total], positions=positions, seed=seed
        ),
        chain=along_chain(
            bundle, dataset, positions=positions, seed=seed, n=20, limit=CHAIN_QUERIES
        ),
        showcase=shown,
        map=plane,
        groups=groups,
        neighbours=neighbours(bundle.model().item_vectors().numpy()[plane.numbers], groups),
        interests=interests,
        generated=generated,
    )


def curves(demo: Demo, recipe: str) -> Curves:
    """The logged numbers of one run."""
    lines = (demo.row(recipe).run.path / "metrics.jsonl").read_bytes().splitlines()
    entries = [msgspec.json.decode(line) for line in lines]
    logged = [e for e in entries if "losses" in e]
    names = list(logged[0]["losses"]) if logged else []
    return Curves(
        steps=[e["step"] for e in logged],
        losses={n: [e["losses"][n] for e in logged] for n in names},
        validation=[(e["step"], e["validation"]) for e in entries if "validation" in e],
    )


def main_categories(dataset: Dataset, numbers: np.ndarray) -> list[str]:
    """One category an item: the rarest of those it has among the `GROUPS` most frequent ones.

    The first one listed would say nothing, since MovieLens lists them by the alphabet.
    """
    known = dataset.metadata()
    count: dict[str, int] = {}
    for item in known:
        for category in item.categories:
            count[category] = count.get(category, 0) + 1
    frequent = sorted(count, key=lambda c: (-count[c], c))[:GROUPS]
    return [
        min(
            (c for c in known[n - 1].categories if c in frequent), key=count.__getitem__, default=""
        )
        for n in numbers.tolist()
    ]


def neighbours(items: np.ndarray, groups: list[str]) -> Neighbours:
    """Of unit vectors `[n, d]` and the group of each; items without a group are left out."""
    has = np.array([bool(g) for g in groups])
    codes = np.unique(np.array(groups)[has], return_inverse=True)[1]
    near = items[has] @ items[has].T
    np.fill_diagonal(near, -np.inf)
    nearest = np.argsort(-near, axis=1)[:, :NEIGHBOURS]
    share = np.bincount(codes) / len(codes)
    return Neighbours(
        alike=float((codes[nearest] == codes[:, None]).mean()), chance=float((share**2).sum())
    )
