"""`dimerec tune` on a small shop."""

from pathlib import Path

from dimerec import config


def test_for_people_then_for_programs(run, ask, shop_folder: Path, tmp_path: Path):
    words = (
        *("tune", shop_folder / "data", "--config", "sasrec", "--out", tmp_path / "tuned"),
        *("--trials", "2", "--epochs", "1", "--space", "options.width=4,8"),
        *("--set", "length=5", "--set", "training.batch_size=64"),
    )
    shown = run(*words)
    assert "options.width" in shown.stdout and "best.toml" in shown.stdout
    assert "trial 0:" in shown.stderr and "trial 1:" in shown.stderr
    found = ask(*words)
    assert len(found["trials"]) == 2 and found["best"] in found["trials"]
    best = config.load(tmp_path / "tuned" / "best.toml")
    assert best.options["width"] == found["best"]["values"]["options.width"]


def test_a_range_that_cannot_be_read(run, shop_folder: Path, tmp_path: Path):
    words = ("tune", shop_folder / "data", "--out", tmp_path / "x", "--space", "options.width=9..1")
    assert "must rise" in run(*words, code=2).stderr
