"""A real plan, run for real: resumed after a kill, one failure does not lose the rest."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from dimerec.bundle import Bundle
from dimerec.cli import app
from dimerec.data.dataset import Dataset
from dimerec.errors import DataError, DimeRecError
from dimerec.evaluation.evaluator import evaluate
from dimerec.experiments import runner, tables
from dimerec.experiments.plan import Plan, fingerprint
from tests.experiments.conftest import PLAN, written

DRIVER = """
import sys
from pathlib import Path
from dimerec.experiments import plan, runner
if __name__ == "__main__":
    here = Path(sys.argv[1])
    runner.run(plan.load(here / "toy.toml"), here / "toy.jsonl", here / "work", report=print)
"""


Done = tuple[Path, Plan, list[runner.Result]]


def test_rows_are_what_the_bundles_score(done: Done) -> None:
    folder, plan, results = done
    assert sorted((r.label, r.seed) for r in results) == [
        ("No diffusion", 0), ("No diffusion", 1), ("Popularity", 0), ("Popularity", 1),
    ]  # fmt: skip
    for r in results:
        bundle = Bundle.open(folder / "work" / "runs" / r.fingerprint / "bundle")
        dataset = Dataset.open(runner.prepared(plan, folder / "work"))
        again = evaluate(bundle, dataset, positions="last", seed=r.seed)
        assert again.metrics == r.metrics
        assert r.card["digest"] == dataset.digest


def test_what_is_done_is_not_repeated(done: Done) -> None:
    folder, plan, results = done
    before = (folder / "toy.jsonl").read_bytes()
    told: list[str] = []
    again = runner.run(plan, folder / "toy.jsonl", folder / "work", report=told.append)
    assert again == results and (folder / "toy.jsonl").read_bytes() == before
    assert "0 of 4 runs to do" in told[0]


def test_hidden_seen_items_are_another_test_of_the_same_training(
    done: Done, tmp_path: Path
) -> None:
    folder, plan, results = done
    hidden = msgspec.structs.replace(
        plan, data=msgspec.structs.replace(plan.data, hide_seen=True), seeds=[0]
    )
    work = folder / "work"
    before = {file: file.stat().st_mtime_ns for file in work.glob("runs/*/run.json")}
    again = runner.run(hidden, tmp_path / "hidden.jsonl", work)
    assert {file: file.stat().st_mtime_ns for file in work.glob("runs/*/run.json")} == before
    for run in plan.runs:
        (one,) = (r for r in results if (r.label, r.seed) == (run.label, 0))
        (other,) = (r for r in again if r.label == run.label)
        assert one.training == other.training and one.fingerprint != other.fingerprint
        assert one.metrics != other.metrics
        places = {runner.ranks_folder(work, p, run, 0, run.label) for p in (plan, hidden)}
        assert len(places) == 2 and all(place.is_dir() for place in places)


def test_what_only_wants_its_scores_is_not_counted_as_a_training(
    done: Done, tmp_path: Path
) -> None:
    folder, _, results = done
    kept = [r for r in results if r.seed == 0]
    (tmp_path / "toy.jsonl").write_bytes(b"".join(msgspec.json.encode(r) + b"\n" for r in kept))
    text = (folder / "toy.toml").read_text("utf-8").replace("seeds = [0, 1]", "seeds = [0, 1, 2]")
    (tmp_path / "toy.toml").write_text(text, "utf-8")
    words = ["reproduce", tmp_path / "toy.toml", "--results", tmp_path, "--work", folder / "work"]
    shown = CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    said = "No diffusion: 1 of 3 there, 2 to run, 1 of them trained before, about "
    (line,) = (line for line in shown.stderr.splitlines() if line.startswith(said))
    seconds = next(r.training["seconds"] for r in kept if r.label == "No diffusion")
    assert line == f"{said}{seconds / 60:.1f} min"


def test_a_line_cut_by_a_kill_is_done_again(done: Done, tmp_path: Path) -> None:
    folder, plan, _ = done
    content = (folder / "toy.jsonl").read_bytes()
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(content[:-40])
    left = runner.read(cut)
    assert len(left) == 3 and len(runner.pending(plan, left)) == 1
    assert cut.read_bytes().endswith(b"\n")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(DataError, match="not a result file"):
        runner.read(tmp_path / "x.jsonl")


def test_results_on_other_data_are_not_added_to(done: Done, tmp_path: Path) -> None:
    folder, plan, _ = done
    lines = (folder / "toy.jsonl").read_text().splitlines(keepends=True)
    digest = Dataset.open(runner.prepared(plan, folder / "work")).digest
    file = tmp_path / "toy.jsonl"
    file.write_text("".join(lines[:-1]).replace(digest, "0" * 64))
    before = file.read_bytes()
    with pytest.raises(DataError, match=f"digest {'0' * 12}, and .* has {digest[:12]}: get the"):
        runner.run(plan, file, folder / "work")
    assert file.read_bytes() == before


def test_results_of_another_plan_are_not_shown(done: Done) -> None:
    folder, plan, _ = done
    longer = msgspec.structs.replace(plan, epochs=2)
    assert runner.current(longer, folder / "toy.jsonl") == []


def test_a_row_of_another_name_is_another(done: Done) -> None:
    folder, plan, results = done
    first, *rest = plan.runs
    renamed = msgspec.structs.replace(
        plan, runs=[msgspec.structs.replace(first, label="Counts"), *rest]
    )
    left = runner.pending(renamed, results)
    assert [(run.label, seed) for run, seed in left] == [("Counts", 0), ("Counts", 1)]
    assert {r.label for r in runner.current(renamed, folder / "toy.jsonl")} == {"No diffusion"}


def test_one_failure_does_not_lose_the_rest(tmp_path: Path) -> None:
    plan = written(tmp_path, PLAN.replace("seeds = [0, 1]", "seeds = [0]"))
    mark = fingerprint(plan, plan.runs[1], 0)
    blocked = tmp_path / "work" / "runs" / mark
    blocked.mkdir(parents=True)
    (blocked / "somebody elses file").touch()
    with pytest.raises(DimeRecError, match=r"1 runs failed: No diffusion \(seed 0\)"):
        runner.run(plan, tmp_path / "toy.jsonl", tmp_path / "work")
    assert [r.label for r in runner.current(plan, tmp_path / "toy.jsonl")] == ["Popularity"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_and_started_again_it_ends_in_the_same_table(
    done: Done, tmp_path: Path, how: signal.Signals
) -> None:
    """Killed, or stopped by Ctrl-C, in the middle of a run: no half run counts as a result."""
    _, plan, results = done
    written(tmp_path)
    (tmp_path / "driver.py").write_text(DRIVER)
    command = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path)]
    first = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    runs = tmp_path / "work" / "runs" / fingerprint(plan, plan.runs[1], 0)
    deadline = time.monotonic() + 240
    while not (runs / "checkpoint" / "checkpoint.json").exists():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(first.pid, how)
    assert first.wait(timeout=240) != 0
    assert [r.label for r in runner.read(tmp_path / "toy.jsonl")] == ["Popularity"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    again = runner.current(plan, tmp_path / "toy.jsonl")
    key = [(r.label, r.seed, r.metrics, r.training["digest"]) for r in again]
    assert key == [(r.label, r.seed, r.metrics, r.training["digest"]) for r in results]


def test_the_page_holds_means_and_deviations(done: Done) -> None:
    _, plan, results = done
    page = tables.page(
        {Path("experiments/toy.toml"): plan}, {Path("experiments/toy.toml"): results}
    )
    values = [100 * r.metrics["hr@20"] for r in results if r.label == "No diffusion"]
    mean = sum(values) / 2
    deviation = abs(values[0] - values[1]) / 2**0.5
    assert f"{mean:.2f} ± {deviation:.2f}" in page
    assert "| *Oracle* (by definition) | *100.00* |" in page
    assert "- No diffusion: x_t = 0." in page and results[0].card["digest"][:12] in page
    popularity = next(line for line in page.splitlines() if line.startswith("| Popularity"))
    other = next(line for line in page.splitlines() if line.startswith("| No diffusion"))
    best = max(results, key=lambda r: r.metrics["hr@20"]).label
    assert (best == "Popularity") == ("**" in popularity.split("|")[2])
    assert (best == "No diffusion") == ("**" in other.split("|")[2])


def test_missing_seeds_are_said(done: Done) -> None:
    _, plan, results = done
    page = tables.section(plan, results[:-1], Path("experiments/toy.toml"))
    assert "1 of 2 seeds" in page
