"""One small demo on real data, made once for the tests that only read it."""

import pytest

from dimerec.experiments import demo as demos
from dimerec.experiments.demo import Demo, Settings
from dimerec.experiments.findings import Findings, findings

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
