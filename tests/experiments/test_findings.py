"""What the report shows beyond the table, against slow references; its words, against numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dimerec.evaluation.evaluator import evaluate
from dimerec.evaluation.intervals import Interval
from dimerec.experiments import report_text as text
from dimerec.experiments.demo import Demo
from dimerec.experiments.denoising import Chain, along_chain
from dimerec.experiments.findings import Findings, main_categories, neighbours
from dimerec.experiments.showcase import typical
from dimerec.models.dimerec import Model


def test_the_chains_last_prediction_is_what_the_model_retrieves_with(demo: Demo, found: Findings):
    bundle = demo.bundle("dimerec")
    how = {"positions": "last-20-percent", "seed": 3}
    chain = along_chain(bundle, demo.dataset, n=20, limit=200, **how)
    scored = evaluate(bundle.with_options({"steps": 20}), demo.dataset, limit=200, lists=0, **how)
    assert chain.times == list(range(20, 0, -1))
    assert chain.clean[-1] == pytest.approx(scored.metrics["hr@20"], abs=0.011)  # ties apart
    one = evaluate(
        bundle, demo.dataset, limit=200, lists=0, **how
    )  # one step: the first prediction
    assert chain.clean[0] == pytest.approx(one.metrics["hr@20"], abs=0.011)


def test_one_step_is_the_tables_row(demo: Demo, found: Findings):
    assert list(found.steps) == [1, 2, 5, 10, 20]
    assert found.steps[1].metrics["hr@20"] == demo.rows[0].metrics["hr@20"]
    assert np.array_equal(found.steps[1].ranks, demo.rows[0].evaluation.ranks)


def test_curves_are_the_log(demo: Demo, found: Findings):
    assert set(found.curves) == {"dimerec", "dimerec-none", "sasrec", "comirec"}
    assert set(found.curves["dimerec"].losses) == {"gem", "recon", "ssm"}
    for recipe, curve in found.curves.items():
        assert [s for s, _ in curve.validation] == [2, 4]
        best = max(v["ndcg@20"] for _, v in curve.validation)
        assert best == demo.row(recipe).run.best
        assert all(len(v) == len(curve.steps) for v in curve.losses.values())


def test_the_showcase_is_a_test_user_cut_before_the_last_fifth(demo: Demo, found: Findings):
    data, shown = demo.dataset, found.showcase
    row = typical(data)
    n = np.diff(data.offsets)
    lengths = sorted(n[data.valid_end == 0][np.diff(data.offsets)[data.valid_end == 0] > 0])
    assert n[row] == lengths[(len(lengths) - 1) // 2] and data.valid_end[row] == 0
    events = data.items[data.offsets[row] : data.offsets[row + 1]].tolist()
    assert shown.history + shown.later == events and shown.user == data.users.ids([row + 1])[0]
    assert len(shown.history) == len(events) * 4 // 5
    assert [i.number for i in shown.recent] == shown.history[::-1][:10]
    for label, recipe in (("DimeRec", "dimerec"), ("SASRec", "sasrec")):
        ids = data.vocabulary.ids(shown.history)
        answer = demo.bundle(recipe).recommender().recommend([ids], 10, seed=3)[0]
        items = shown.lists[label]
        assert data.vocabulary.ids([i.number for i in items]) == answer.items
        assert not {i.number for i in items} & set(shown.history)
        assert [i.hit for i in items] == [i.number in shown.later for i in items]
        assert all(i.title == data.metadata()[i.number - 1].title for i in items)


def test_the_map_is_the_plane_of_greatest_variance(demo: Demo, found: Findings):
    bundle, plane = demo.bundle("dimerec"), found.map
    vectors = bundle.model().item_vectors().numpy().astype(np.float64)
    counts = demo.dataset.counts()
    assert list(counts[plane.numbers]) == sorted(counts[1:], reverse=True)[: len(plane.numbers)]
    chosen = vectors[plane.numbers] / np.linalg.norm(vectors[plane.numbers], axis=1, keepdims=True)
    values, axes = np.linalg.eigh(np.cov(chosen.T, bias=True))
    assert plane.share == pytest.approx(values[-2:].sum() / values.sum(), rel=1e-4)
    for i in range(2):
        expected = (chosen - chosen.mean(0)) @ axes[:, -1 - i]
        got = plane.points[:, i]
        assert min(abs(expected - got).max(), abs(expected + got).max()) < 1e-4
    assert np.allclose(plane.place(chosen[:3].astype(np.float32)), plane.points[:3], atol=1e-5)


def test_interests_and_generated_vectors_are_the_models(demo: Demo, found: Findings):
    model = demo.bundle("dimerec").model()
    assert isinstance(model, Model)
    padded = [0] * (12 - len(found.showcase.history)) + found.showcase.history[-12:]
    expected = model.guide(torch.tensor([padded]))[0].numpy()
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(found.interests, expected, atol=1e-5)
    assert found.generated.shape == (32, 16)
    assert np.allclose(np.linalg.norm(found.generated, axis=1), 1, atol=1e-5)
    assert len(np.unique(found.generated.round(6), axis=0)) == 32


def test_a_films_group_is_its_rarest_frequent_genre(demo: Demo):
    known = demo.dataset.metadata()
    genres = [g for item in known for g in item.categories]
    frequent = sorted(set(genres), key=lambda g: (-genres.count(g), g))[:8]
    groups = main_categories(demo.dataset, np.arange(1, len(known) + 1))
    for item, group in zip(known, groups, strict=True):
        own = [g for g in item.categories if g in frequent]
        assert group == (min(own, key=genres.count) if own else "")


def test_neighbours_against_a_loop():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    groups = [str(g) for g in rng.integers(0, 3, 40)]
    groups[7] = ""
    kept = [i for i in range(40) if groups[i]]
    alike = []
    for i in kept:
        near = sorted((j for j in kept if j != i), key=lambda j: -float(x[i] @ x[j]))[:10]
        alike += [groups[j] == groups[i] for j in near]
    near = neighbours(x, groups)
    assert near.alike == pytest.approx(np.mean(alike))
    shares = [sum(groups[i] == g for i in kept) / 39 for g in "012"]
    assert near.chance == pytest.approx(sum(s**2 for s in shares))


def _with_gap(demo: Demo, gap: Interval) -> Demo:
    rows = [replace(r, gap=gap) if r.recipe == "dimerec-none" else r for r in demo.rows]
    return replace(demo, rows=rows)


@pytest.mark.parametrize(
    ("gap", "said", "place"),
    [
        (Interval(0.001, -0.01, 0.01), "adds nothing", "not to be told apart"),
        (Interval(-0.02, -0.03, -0.01), "the diffusion helps", "Worse than"),
        (Interval(0.02, 0.01, 0.03), "better off without", "Better than"),
    ],
)
def test_what_is_said_of_the_diffusion_follows_from_the_numbers(
    demo: Demo,
    gap: Interval,
    said: str,
    place: str,
):
    changed = _with_gap(demo, gap)
    assert said in text.diffusion(changed)
    sentence = next(s for s in text.ranking(changed).split(". ") if "(x_t = 0)" in s)
    assert place in sentence


def test_the_lead_names_the_highest(demo: Demo):
    def lead(best: int, gap: Interval) -> str:
        rows = []
        for i, row in enumerate(demo.rows):
            values = {**row.evaluation.metrics, "hr@20": 0.5 if i == best else 0.25}
            evaluation = replace(row.evaluation, metrics=values)
            rows.append(replace(row, evaluation=evaluation, gap=gap))
        return text.lead(replace(demo, rows=rows))

    close, clear = Interval(0.25, -0.1, 0.6), Interval(0.25, 0.2, 0.3)
    assert text.percent(0.5) in lead(0, close) and lead(0, close).endswith("in this comparison.")
    told = lead(2, close)
    assert text.percent(0.25) in told and text.percent(0.5) in told
    assert told.endswith("is that of SASRec, too close to be told apart.")
    assert lead(2, clear).endswith("is that of SASRec.")


def test_what_is_said_of_steps_and_chains(found: Findings):
    def said(first: list[float], last: list[float]) -> str:
        base = found.steps[1]
        users = np.arange(len(first))
        steps = {
            s: replace(base, ranks=np.array(r, np.float32), users=users)
            for s, r in ((1, first), (20, last))
        }
        return text.steps(replace(found, steps=steps))

    hit, miss = [1.0] * 50, [99.0] * 50
    assert "More steps hurt" in said(hit, miss) and "−100.0" in said(hit, miss)
    assert "More steps help" in said(miss, hit)
    assert "neither help nor hurt" in said(hit, hit)
    chain = Chain([2, 1], [0.01, 0.2], [0.3, 0.4])
    words = text.chain(replace(found, chain=chain))
    assert all(
        w in words
        for w in (text.percent(0.01), text.percent(0.2), text.percent(0.3), text.percent(0.4))
    )
