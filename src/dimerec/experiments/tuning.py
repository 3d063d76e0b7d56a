"""Search for a model's own best settings, on the validation split alone.

Every model is given the same budget, trials and passes over the training targets. What trial n
tries is a pure function of the seed and of the trials before it, so a search that was killed goes
on to the same end. The sampler is Optuna's tree-structured Parzen estimator, which draws at random
until ten trials are complete and learns from them after that.
"""

import math
import re
import shutil
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from dimerec import config, files, randomness
from dimerec.config import RunConfig, Struct
from dimerec.errors import ConfigError, DataError, DimeRecError, TrainingDiverged

if TYPE_CHECKING:
    from dimerec.data.dataset import Dataset

SEARCH, TRIALS, BEST = "search.json", "trials.jsonl", "best.toml"
NUMBER = r"-?[0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?"
RANGE = re.compile(rf"({NUMBER})\.\.({NUMBER})(:log)?", re.IGNORECASE)


class Range(Struct, frozen=True):
    """Where a setting is looked for: between two numbers, or among some values.

    Attributes:
        low, high: both included; whole numbers where both are.
        log: evenly over orders of magnitude.
        among: the values, where there are few.
    """

    low: float | int = 0
    high: float | int = 0
    log: bool = False
    among: list[float | int | str | bool] = []

    def __contains__(self, value: Any) -> bool:
        if self.among:
            return value in self.among
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high


class Search(Struct, frozen=True):
    """What decides a search: `search.json`.

    Attributes:
        recipe: what it starts from, as the fingerprint of its configuration.
        name: how that is called.
        model: whose settings are looked for.
        dataset: digest.
        space: by setting.
        seed: of the search; the training's seed is the recipe's own.
        epochs: passes over the training targets, each trial.
        metric: of the validation split.
    """

    recipe: str
    name: str
    model: str
    dataset: str
    space: dict[str, Range]
    seed: int
    epochs: int
    metric: str


class Trial(Struct, frozen=True):
    """One line of `trials.jsonl`.

    Attributes:
        number: from 0.
        values: by setting.
        state: "failed" when the training diverged; such a trial has no score.
        score: best value of the metric on the validation split.
        best_step, cpu_seconds: of the run.
        error: why it failed.
    """

    number: int
    values: dict[str, float | int | str | bool]
    state: Literal["complete", "failed"]
    score: float | None = None
    best_step: int = 0
    cpu_seconds: float = 0.0
    error: str = ""


def space(model: str, given: list[str]) -> dict[str, Range]:
    """Where to look: what `spaces.toml` says of the model, changed by `given` ("key=range").

    Raises:
        ConfigError: no range can be read, or the model has no space and none is given.
    """
    table = tomllib.loads((Path(__file__).parent / "spaces.toml").read_text("utf-8"))
    texts = table["counting"].get(model)
    if texts is None:
        texts = {**table["trained"], **table["models"].get(model, {})}
    if given:
        texts = {}
    elif not texts:
        raise ConfigError(f"{model} has no setting to look for; name one with --space")
    for item in given:
        key, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"space {item!r}: write it as key=low..high, :log behind it, or a,b")
        texts[key.strip()] = text.strip()
    return {key: parsed(key, text) for key, text in texts.items()}


def parsed(key: str, text: str) -> Range:
    """A range as it is written; ConfigError when it cannot be read."""
    if found := RANGE.fullmatch(text):
        low, high = (_value(end) for end in found.groups()[:2])
        log = found.group(3) is not None
        if not low < high or (log and low <= 0):
            raise ConfigError(f"space {key}={text}: must rise, and with :log begin above 0")
        return Range(low=low, high=high, log=log)
    if "," in text and all(text.split(",")):
        return Range(among=[_value(part.strip()) for part in text.split(",")])
    raise ConfigError(f"space {key}={text}: write low..high, low..high:log or a,b,c")


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def tune(
    dataset: "Dataset",
    recipe: str,
    out: str | Path,
    *,
    trials: int,
    epochs: int,
    space: Mapping[str, Range],
    changes: tuple[str, ...] = (),
    seed: int = 0,
    report: Callable[[Trial], object] = lambda trial: None,
) -> list[Trial]:
    """Do the trials that are not there yet; leaves `trials.jsonl` and the best as `best.toml`.

    The first trial is the recipe as it is, where the space holds it, so that what is found is not
    worse than what there was.

    Args:
        dataset: its test split is never looked at.
        recipe: a shipped name or a file.
        out: the search's folder; an earlier search there goes on if it is the same one.
        trials: how many in all.
        epochs: passes over the training targets of each.
        space: see `space`.
        changes: overrides of every trial, `key.sub=value`.
        seed: of the search.
        report: told each trial as it ends.

    Raises:
        ConfigError: a setting that the model has not; another search lies in `out`; Optuna is not
            installed; the dataset has no validation query.
        DimeRecError: interrupted; go on by the same call.
    """
    out = Path(out)
    budget = [f"training.epochs={epochs}", "training.max_steps=1000000000"]
    base = config.load(recipe, [*changes, *budget])
    for key, one in space.items():
        config.load(
            recipe, [*changes, *budget, _override(key, one.among[0] if one.among else one.low)]
        )
    if not len(dataset.queries("valid", "every-position", 1)):
        raise ConfigError(f"{dataset.path}: no validation query to choose by; prepare it anew")
    search = Search(
        recipe=base.fingerprint,
        name=str(recipe),
        model=base.model,
        dataset=dataset.digest,
        space=dict(space),
        seed=seed,
        epochs=epochs,
        metric=base.training.metric,
    )
    _open(out, search)
    done = read(out)
    for number in range(len(done), trials):
        values = None if number else as_it_is(base, space)
        values = values or propose(search, done, number)
        overrides = [*changes, *budget, *(_override(k, v) for k, v in values.items())]
        trial = _one(dataset, config.load(recipe, overrides), out, number, values)
        done.append(trial)
        with (out / TRIALS).open("ab") as file:
            file.write(msgspec.json.encode(trial) + b"\n")
        shutil.rmtree(_folder(out, number), ignore_errors=True)
        report(trial)
    first = best(done)
    if first is not None:
        overrides = [*changes, *budget, *(_override(k, v) for k, v in first.values.items())]
        chosen = config.load(recipe, overrides)
        about = (
            f"{base.about}; the best of {len(done)} trials of {epochs} epochs by {search.metric} "
            f"{first.score:.4f} on the validation split of {dataset.card.name}"
        )
        written = as_toml(msgspec.structs.replace(chosen, about=about))
        files.write_file(out / BEST, written.encode())
    return done


def as_it_is(recipe: RunConfig, space: Mapping[str, Range]) -> dict[str, Any] | None:
    """What a recipe has for the settings that are looked for; None where the space lacks one."""
    tree = msgspec.to_builtins(msgspec.structs.replace(recipe, options={}))
    tree["options"] = msgspec.to_builtins(recipe.model_config())
    values: dict[str, Any] = {}
    for key, where in space.items():
        value: Any = tree
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value not in where:
            return None
        values[key] = value
    return values


def best(trials: list[Trial]) -> Trial | None:
    """The trial with the highest score, of equal ones the first; None where all failed."""
    scored = [t for t in trials if t.score is not None]
    return max(scored, key=lambda t: t.score or 0.0, default=None)


def read(out: Path) -> list[Trial]:
    """The trials in a folder; a last line that a kill cut short is dropped."""
    path = out / TRIALS
    if not path.exists():
        return []
    *lines, rest = path.read_bytes().split(b"\n")
    if rest:
        files.write_file(path, b"".join(line + b"\n" for line in lines))
    try:
        return [msgspec.json.decode(line, type=Trial) for line in lines]
    except msgspec.DecodeError as e:
        raise DataError(f"{path}: not the trials of a search ({e})") from e


def propose(search: Search, done: list[Trial], number: int) -> dict[str, Any]:
    """The settings of a trial: at random until ten before it are complete, then by what they gave.

    Raises:
        ConfigError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as e:
        raise ConfigError(
            "tuning needs Optuna, which is not installed: pip install 'dimerec[experiments]'"
        ) from e
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    where = {key: _distribution(optuna, one) for key, one in search.space.items()}
    sampler = optuna.samplers.TPESampler(seed=randomness.key(search.seed, "tuning", number) % 2**32)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    states = optuna.trial.TrialState
    for trial in done[:number]:
        study.add_trial(
            optuna.trial.create_trial(
                params=trial.values,
                distributions=where,
                value=trial.score,
                state=states.FAIL if trial.score is None else states.COMPLETE,
            )
        )
    return dict(study.ask(where).params)


def _distribution(optuna: Any, one: Range) -> Any:
    kinds = optuna.distributions
    if one.among:
        return kinds.CategoricalDistribution(one.among)
    if isinstance(one.low, int) and isinstance(one.high, int):
        return kinds.IntDistribution(one.low, one.high, log=one.log)
    return kinds.FloatDistribution(one.low, one.high, log=one.log)


def _one(
    dataset: "Dataset", recipe: RunConfig, out: Path, number: int, values: dict[str, Any]
) -> Trial:
    from dimerec.training.loop import train

    try:
        run = train(dataset, recipe, _folder(out, number), resume=True, threads=1, progress=False)
    except TrainingDiverged as e:
        return Trial(number, values, "failed", error=str(e))
    if run.stopped == "interrupted":
        raise DimeRecError(f"interrupted in trial {number}; the same command goes on from there")
    assert run.best is not None and math.isfinite(run.best)
    return Trial(number, values, "complete", run.best, run.best_step, run.cpu_seconds)


def _folder(out: Path, number: int) -> Path:
    return out / f"trial-{number:04d}"


def _open(out: Path, search: Search) -> None:
    """Make the folder, or see that the same search lies there."""
    file = out / SEARCH
    if not file.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(f"{out}: exists and is no search; give another --out")
        out.mkdir(parents=True, exist_ok=True)
        files.write_file(file, msgspec.json.format(msgspec.json.encode(search), indent=1) + b"\n")
        return
    try:
        there = msgspec.json.decode(file.read_bytes(), type=Search)
    except msgspec.DecodeError as e:
        raise DataError(f"{file}: not a search ({e})") from e
    names = [n for n in Search.__struct_fields__ if getattr(there, n) != getattr(search, n)]
    if names:
        raise ConfigError(
            f"{out}: holds another search, which differs in {', '.join(names)}; give another --out"
        )


def _override(key: str, value: Any) -> str:
    return f"{key}={_scalar(value)}"


def as_toml(recipe: RunConfig) -> str:
    """A recipe as a file that `config.load` reads back to the same configuration."""
    return "\n".join(_lines(msgspec.to_builtins(recipe), "")).strip() + "\n"


def _lines(tree: dict[str, Any], name: str) -> list[str]:
    inner = {k: v for k, v in tree.items() if isinstance(v, dict)}
    lines = [f"{k} = {_scalar(v)}" for k, v in tree.items() if k not in inner]
    if name and lines:
        lines = ["", f"[{name}]", *lines]
    for key, value in inner.items():
        lines += _lines(value, f"{name}.{key}" if name else key)
    return lines


def _scalar(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    # JSON writes text, numbers and truth values as TOML does.
    return msgspec.json.encode(value).decode()
