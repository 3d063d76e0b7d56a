"""One small demo and one small plan on real data, made once for the tests that only read them."""

from pathlib import Path

import pytest

from dimerec.experiments import demo as demos
from dimerec.experiments import runner
from dimerec.experiments.demo import Demo, Settings
from dimerec.experiments.findings import Findings, findings
from dimerec.experiments.plan import Plan, load

SMALL = Settings(
    positions="last-20-percent",
    min_item_events=80,
    changes=(
        "length=12",
        "options.width=16",
        "training.max_steps=4",
        "training.batch_size=4",
        "training.validate_every=2",
        "training.validation_queries=50",
        "negatives.kind=none",
    ),
    lists=40,
)


@pytest.fixture(scope="session")
def told() -> list[tuple[str, int, int, str]]:
    return []


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, told: list) -> Demo:
    out = tmp_path_factory.mktemp("demo") / "out"
    done = demos.run(out, seed=3, settings=SMALL, progress=told.append)
    demos.write(done)
    return done


@pytest.fixture(scope="session")
def found(demo: Demo) -> Findings:
    return findings(demo)


PLAN = """
title = "Toy"
about = "Small rows on real data."
epochs = 1
seeds = [0, 1]
set = ["length=10", "training.batch_size=256", "training.validation_queries=100"]
metrics = ["hr@20", "ndcg@20"]

[data]
source = "ml-latest-small"
min_item_events = 20
positions = "last"

[[runs]]
label = "Popularity"
config = "popularity"

[[runs]]
label = "No diffusion"
config = "dimerec-none"
set = ["options.width=8"]
note = "x_t = 0"

[[published]]
label = "Oracle"
source = "by definition"
metrics = { "hr@20" = 1.0 }
"""


def written(folder: Path, text: str = PLAN) -> Plan:
    (folder / "toy.toml").write_text(text)
    return load(folder / "toy.toml")


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan, list[runner.Result]]:
    folder = tmp_path_factory.mktemp("done")
    plan = written(folder)
    return folder, plan, runner.run(plan, folder / "toy.jsonl", folder / "work")
