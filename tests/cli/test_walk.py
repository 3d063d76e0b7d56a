"""The whole way by commands, the main ones as processes: somebody's CSV to recommendations."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from dimerec import Dataset
from tests.cli import shop
from tests.cli.shop import DIMEREC, dimerec, document

TINY = [
    *("--config", "dimerec", "--threads", "1", "--set", "length=8", "--set", "options.width=8"),
    *("--set", "training.batch_size=8", "--set", "negatives.number=4"),
]


def test_own_data_from_a_csv_to_recommendations(tmp_path: Path, run, ask):
    shop.write_log(tmp_path / "clicks.csv.gz")
    shop.write_items(tmp_path / "products.csv")

    prepared = document(
        *("prepare", "clicks.csv.gz", "--columns", shop.COLUMNS, "--items", "products.csv"),
        *("--protocol", "leave-one-out", "--out", "data/clicks"),
        cwd=tmp_path,
    )
    walks = shop.events()
    assert prepared["path"] == "data/clicks"
    assert prepared["card"]["users"] == len(walks)
    assert prepared["card"]["events"] == sum(map(len, walks.values()))
    dataset = Dataset.open("data/clicks")
    for row, user in enumerate(dataset.users.ids(range(1, len(walks) + 1))):
        numbers = dataset.items[dataset.offsets[row] : dataset.offsets[row + 1]]
        assert dataset.vocabulary.ids(numbers.tolist()) == walks[str(user)]

    run("audit", "data/clicks")
    shown = dimerec(
        *("train", "data/clicks", *TINY, "--set", "training.max_steps=5", "--out", "runs/tiny"),
        cwd=tmp_path,
    )
    assert "dimerec finished after 5 steps" in shown
    # the commands it names next are to be typed as they stand
    following = [line.strip() for line in shown.splitlines() if line.startswith("  dimerec ")]
    assert [line.split()[1] for line in following] == ["evaluate", "recommend"]
    for line in following:
        done = subprocess.run(
            f"{DIMEREC.parent}/{line}", shell=True, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    result = ask("evaluate", "runs/tiny", "data/clicks", "--out", "scores")
    assert result["card"]["queries"] == len(walks)  # one test event each
    assert 0 <= result["metrics"]["hr@10"] <= 1
    assert json.loads((tmp_path / "scores/evaluation.json").read_text()) == result

    seen = shop.SKUS[:3]
    words = ("recommend", "runs/tiny/bundle", "--history", ",".join([*seen, "sku-99"]), "-n", 5)
    answer = ask(*words)["recommendations"][0]
    assert (answer["source"], answer["unknown"]) == ("model", ["sku-99"])
    ids = [item["id"] for item in answer["items"]]
    assert len(set(ids)) == 5 and set(ids) <= set(shop.SKUS) - set(seen)
    assert answer["items"][0]["title"] == f"Thing [red] {ids[0][-2:]} é"
    assert answer["items"][0]["categories"] == ["odd", "all"]


def started(folder: Path, data: Path, steps: int) -> subprocess.Popen:
    """`dimerec train` as a process that has validated for the first time."""
    process = subprocess.Popen(
        [DIMEREC, *map(str, training(folder, data, steps))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 240
    while not (folder / "best").is_dir():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.01)
    return process


def training(folder: Path, data: Path, steps: int) -> list[object]:
    words = ["train", data, *TINY, "--out", folder, "--set", f"training.max_steps={steps}"]
    return [*words, "--set", "training.validate_every=20", "--json"]


def test_ctrl_c_leaves_a_run_that_can_be_used_and_says_so(shop_folder: Path, tmp_path: Path, ask):
    process = started(tmp_path / "run", shop_folder / "data", 100_000)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    summary = json.loads(out)
    assert summary["stopped"] == "interrupted" and summary["steps"] >= 20
    answer = ask("recommend", tmp_path / "run", "--history", shop.SKUS[0])
    assert answer["recommendations"][0]["source"] == "model"


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_never_been_killed(
    shop_folder: Path, tmp_path: Path, run, ask
):
    data, killed, steps = shop_folder / "data", tmp_path / "killed", 500
    process = started(killed, data, steps)
    process.kill()
    process.communicate()
    assert not (killed / "run.json").exists(), "it ended before it could be killed"

    refused = run("evaluate", killed, data, code=2)
    assert "--resume" in refused.stderr
    refused = run("train", data, "--out", killed, "--resume", "--set", "seed=9", code=2)
    assert "seed 0 -> 9" in refused.stderr
    # its own settings need not be said again
    resumed = document("train", data, "--out", killed, "--resume", "--threads", 1)
    whole = json.loads(run(*training(tmp_path / "whole", data, steps)).stdout)
    assert (resumed["steps"], resumed["stopped"]) == (steps, "finished")
    assert resumed["digest"] == whole["digest"]


def test_a_terminal_that_cannot_show_a_title(shop_folder: Path):
    words = ["recommend", shop_folder / "popular", "--history", "sku-01"]
    shown = dimerec(*words, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert "Thing [red] 01 \\xe9" in shown


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_nobody_reads_the_output(more: list[str]):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as out:
        done = subprocess.run(
            [DIMEREC, "sources", *more], stdout=out, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (141, "")
