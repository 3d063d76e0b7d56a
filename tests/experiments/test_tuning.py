"""A search: what it looks at, that it goes on after a kill to the same end, what it writes."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from dimerec import config
from dimerec.data.dataset import Dataset
from dimerec.errors import ConfigError, DataError, DimeRecError, TrainingDiverged
from dimerec.experiments import tuning
from dimerec.experiments.tuning import Range, Trial, parsed, propose
from tests.training.conftest import make_dataset

RECIPE = """
model = "sasrec"
about = "tiny"
length = 6

[options]
width = 4

[options.transformer]
layers = 1

[training]
batch_size = 32
validate_every = 100
metric = "hr@10"
"""
SPACE = {
    "training.learning_rate": Range(low=0.001, high=0.1, log=True),
    "options.width": Range(among=[2, 4]),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("walks") / "data")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return str(path)


def search(data: Dataset, recipe: str, out: Path, trials: int = 4, **more: Any) -> list[Trial]:
    return tuning.tune(data, recipe, out, trials=trials, epochs=2, **{"space": SPACE, **more})


@pytest.fixture(scope="module")
def whole(data: Dataset, recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "whole"
    search(data, recipe, out)
    return out


def scores(trials: list[Trial]) -> list[tuple]:
    return [(t.number, t.values, t.state, t.score, t.best_step) for t in trials]


def test_the_best_is_a_recipe_and_the_score_is_that_of_its_training(
    whole: Path, data: Dataset, recipe: str, tmp_path: Path
) -> None:
    from dimerec.training.loop import train

    done = tuning.read(whole)
    best = tuning.best(done)
    assert best and [t.number for t in done] == [0, 1, 2, 3]
    assert best.score == max(t.score or 0 for t in done)
    for t in done:
        assert 0.001 <= float(t.values["training.learning_rate"]) <= 0.1
        assert t.values["options.width"] in (2, 4)
    assert len({t.values["training.learning_rate"] for t in done}) == 4
    found = config.load(whole / tuning.BEST)
    assert found.options["width"] == best.values["options.width"]
    assert found.training.learning_rate == best.values["training.learning_rate"]
    assert (found.training.epochs, found.length) == (2, 6)
    assert "best of 4 trials" in found.about
    again = train(data, found, tmp_path / "again", threads=1, progress=False)
    assert again.best == best.score


def test_killed_anywhere_it_goes_on_to_the_same_end(
    whole: Path, data: Dataset, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dimerec.training import loop

    out = tmp_path / "cut"
    assert scores(search(data, recipe, out, trials=2)) == scores(tuning.read(whole)[:2])
    with (out / tuning.TRIALS).open("ab") as file:
        file.write(b'{"number":2,"val')  # a line that a kill cut short
    real, trained = loop.train, []

    def counted(*given: Any, **named: Any) -> Any:
        trained.append(given[2].name)
        return real(*given, **named)

    monkeypatch.setattr(loop, "train", counted)
    told: list[Trial] = []
    done = search(data, recipe, out, report=told.append)
    assert scores(done) == scores(tuning.read(whole)) and len(told) == 2
    assert trained == ["trial-0002", "trial-0003"]
    assert (out / tuning.BEST).read_bytes() == (whole / tuning.BEST).read_bytes()
    assert not list(out.glob("trial-*"))


def test_the_test_split_is_never_looked_at(
    data: Dataset, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = Dataset.queries

    def noted(self: Dataset, split: str, *more: Any) -> Any:
        asked.append(split)
        return real(self, split, *more)

    monkeypatch.setattr(Dataset, "queries", noted)
    search(data, recipe, tmp_path / "out", trials=1)
    assert set(asked) == {"valid"}


def test_a_trial_that_diverges_is_noted_and_the_rest_goes_on(
    data: Dataset, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dimerec.training import loop

    real = loop.train

    def breaks(*given: Any, **named: Any) -> Any:
        if given[2].name == "trial-0000":
            raise TrainingDiverged("the loss part ssm is nan")
        return real(*given, **named)

    monkeypatch.setattr(loop, "train", breaks)
    done = search(data, recipe, tmp_path / "out", trials=2)
    assert [t.state for t in done] == ["failed", "complete"] and "nan" in done[0].error
    best = tuning.best(done)
    assert best and best.number == 1 and tuning.best(done[:1]) is None
    assert tuning.read(tmp_path / "out") == done


def test_an_interrupted_trial_is_not_noted(
    data: Dataset, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dimerec.training import loop

    real = loop.train

    def stopped(*given: Any, **named: Any) -> Any:
        return msgspec.structs.replace(real(*given, **named), stopped="interrupted")

    monkeypatch.setattr(loop, "train", stopped)
    with pytest.raises(DimeRecError, match="trial 0; the same command goes on"):
        search(data, recipe, tmp_path / "out", trials=1)
    assert tuning.read(tmp_path / "out") == []


def test_the_first_trial_is_the_recipe_where_the_space_holds_it(
    whole: Path, data: Dataset, recipe: str, tmp_path: Path
) -> None:
    from dimerec.training.loop import train

    plain = tuning.read(whole)[0]
    assert plain.values == {"training.learning_rate": 0.001, "options.width": 4}
    budget = ["training.epochs=2", "training.max_steps=1000000000"]
    assert plain.score == train(data, config.load(recipe, budget), tmp_path / "run").best
    wide = {**SPACE, "options.width": Range(among=[2, 8])}
    assert tuning.as_it_is(config.load(recipe), wide) is None
    (other,) = search(data, recipe, tmp_path / "wide", 1, space=wide)
    assert other.values["options.width"] in (2, 8)
    dropout = {"options.transformer.dropout": Range(low=0.0, high=0.5)}  # the model's default
    assert tuning.as_it_is(config.load(recipe), dropout) == {"options.transformer.dropout": 0.2}
    for value in (1, 3, 2.5):
        assert value in Range(low=1, high=3)
    for value in (0, 3.1, True, "1", None):
        assert value not in Range(low=1, high=3)


def test_later_trials_learn_from_earlier_ones() -> None:
    """Of a score that falls with the distance from 0.02, the later half of 40 trials is nearer."""
    space = {"x": Range(low=0.0001, high=1.0, log=True)}
    one = tuning.Search("", "", "", "", space, 0, 1, "hr@10")
    import math

    done: list[Trial] = []
    for number in range(40):
        values = propose(one, done, number)
        away = abs(math.log(values["x"] / 0.02))
        done.append(Trial(number, values, "complete", -away))
    away = [-(t.score or 0) for t in done]
    assert sum(away[20:]) < 0.7 * sum(away[:20])
    assert propose(one, done, 7) == done[7].values  # of the trials before it alone


def test_the_first_ten_trials_are_drawn_at_random() -> None:
    """Whatever those before them gave; the next one depends on it."""
    one = tuning.Search("", "", "", "", {"x": Range(low=0.0, high=1.0)}, 0, 1, "hr@10")
    searches: tuple[list[Trial], list[Trial]] = [], []
    for number in range(11):
        for done, sign in zip(searches, (1, -1), strict=True):
            values = propose(one, done, number)
            done.append(Trial(number, values, "complete", sign * values["x"]))
    tried, other = ([trial.values["x"] for trial in done] for done in searches)
    assert tried[:10] == other[:10] and tried[10] != other[10]


def test_another_search_in_the_folder_is_refused(
    whole: Path, data: Dataset, recipe: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"another search, which differs in seed;"):
        search(data, recipe, whole, seed=1)
    narrow = {"options.width": Range(among=[2, 4])}
    with pytest.raises(ConfigError, match="differs in space"):
        search(data, recipe, whole, space=narrow)
    (tmp_path / "x").write_text("mine")
    with pytest.raises(ConfigError, match="exists and is no search"):
        search(data, recipe, tmp_path)
    (whole.parent / "broken").mkdir()
    (whole.parent / "broken" / tuning.TRIALS).write_text("{}\n")
    with pytest.raises(DataError, match="not the trials of a search"):
        tuning.read(whole.parent / "broken")


def test_a_setting_that_the_model_has_not_is_refused_before_anything_runs(
    data: Dataset, recipe: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="speed"):
        search(data, recipe, tmp_path / "out", space={"options.speed": Range(low=0.0, high=1.0)})
    assert not (tmp_path / "out").exists()


def test_without_validation_there_is_nothing_to_choose_by(recipe: str, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", validation=0)
    with pytest.raises(ConfigError, match="no validation query"):
        search(data, recipe, tmp_path / "out")


def test_ranges_as_they_are_written() -> None:
    assert parsed("x", "0.001..0.1:log") == Range(low=0.001, high=0.1, log=True)
    whole = parsed("x", "2..8")
    assert whole == Range(low=2, high=8) and isinstance(whole.high, int)
    assert parsed("x", "1e-4..2").low == 0.0001
    assert parsed("x", "32,64,sum,true").among == [32, 64, "sum", True]
    for wrong in ("", "5", "3..1", "0..1:log", "a,,b", "1..2:exp"):
        with pytest.raises(ConfigError, match="space x="):
            parsed("x", wrong)
    with pytest.raises(ConfigError, match="write it as key="):
        tuning.space("sasrec", ["options.width"])


@pytest.mark.parametrize("name", config.shipped())
def test_every_shipped_space_fits_its_recipes(name: str) -> None:
    recipe = config.load(name)
    if recipe.model in ("popularity", "cooccurrence"):
        with pytest.raises(ConfigError, match=f"{recipe.model} has no setting to look for"):
            tuning.space(recipe.model, [])
        return
    found = tuning.space(recipe.model, [])
    assert ("training.learning_rate" in found) is (recipe.model not in ("itemknn", "sknn"))
    assert len(found) > 1
    for key, one in found.items():
        for end in one.among or (one.low, one.high):
            config.load(name, [tuning._override(key, end)])


@pytest.mark.parametrize("name", config.shipped())
def test_a_recipe_written_is_the_recipe_read(name: str, tmp_path: Path) -> None:
    recipe = config.load(name, ['about="says \\"so\\""'])
    (tmp_path / "again.toml").write_text(tuning.as_toml(recipe))
    assert config.load(tmp_path / "again.toml") == recipe


TUNED = sorted((Path(__file__).parents[2] / "results" / "tuning").glob("*"))


def test_all_strong_recipes_were_tuned_by_one_budget() -> None:
    from dimerec.experiments.tuning import SEARCH, Search

    assert TUNED
    searches = [msgspec.json.decode((f / SEARCH).read_bytes(), type=Search) for f in TUNED]
    assert {s.name for s in searches} == {f.name for f in TUNED}
    assert len({(s.dataset, s.epochs, s.metric, s.seed) for s in searches}) == 1
    assert {len(tuning.read(f)) for f in TUNED} == {10}
    strong = {n for n in config.shipped() if n.endswith("-strong")}
    assert strong <= {f.name for f in TUNED} | {f"{f.name}-strong" for f in TUNED}


@pytest.mark.parametrize("folder", TUNED, ids=lambda f: f.name)
def test_a_strong_recipe_holds_what_its_search_found(folder: Path) -> None:
    best = tuning.best(tuning.read(folder))
    assert best is not None
    strong = f"{folder.name}-strong"
    other = tuning.best(tuning.read(folder.with_name(strong)))
    if other is not None:  # looked for with its own loss, and with the shared one: shipped if best
        assert (best.score or 1.0) < (other.score or 0.0)
        return
    recipe = config.load(strong if strong in config.shipped() else folder.name)
    numbers = {k: v for k, v in best.values.items() if type(v) in (int, float)}
    words = {k: v for k, v in best.values.items() if k not in numbers}
    space = {key: Range(low=-1e9, high=1e9) for key in numbers}
    assert tuning.as_it_is(recipe, space) == pytest.approx(numbers, rel=0.005)
    held = {key: Range(among=[value]) for key, value in words.items()}
    assert not words or tuning.as_it_is(recipe, held) == words
    found = [tuning._override(key, value) for key, value in best.values.items()]
    begun, ended = config.load(folder.name, found), config.load(str(folder / tuning.BEST))
    assert config.load(
        strong if strong in config.shipped() else folder.name, found
    ).fingerprint == (begun.fingerprint), (
        "differs from what it began as in more than what was looked for"
    )
    assert (ended.options, ended.negatives) == (begun.options, begun.negatives)
