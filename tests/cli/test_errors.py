"""Bad input: exit code 2, one line that says what and where, nothing on standard output."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dimerec.errors import DataError
from tests.cli import shop


def bad_log(name: str, content: str) -> Callable[[Path], list[object]]:
    def words(folder: Path) -> list[object]:
        Path(name).write_text(content)
        return ["prepare", name, "--out", "out"]

    return words


def cut_gzip(folder: Path) -> list[object]:
    whole = (folder / "log.csv.gz").read_bytes()
    Path("cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    return ["prepare", "cut.csv.gz", "--columns", shop.COLUMNS, "--out", "out"]


def broken_bundle(folder: Path) -> list[object]:
    shutil.copytree(folder / "counted" / "bundle", "bundle")
    weights = Path("bundle/weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    return ["recommend", "bundle", "--history", "sku-01"]


def other_catalogue(folder: Path) -> list[object]:
    Path("other.csv").write_text(
        "user,item\n" + "".join(f"{u},{i}\n" for u in range(20) for i in range(4))
    )
    return ["prepare", "other.csv", "--out", "other"]


def log(folder: Path) -> list[object]:
    return ["prepare", folder / "log.csv.gz", "--columns", shop.COLUMNS, "--out", "out"]


HEADER = "user,item,time\n"
ROWS = "".join(f"{u},{i},{1_700_000_000 + i}\n" for u in range(20) for i in range(5))
CASES: dict[str, tuple[Callable[[Path], list[object]], tuple[str, ...]]] = {
    "no such log": (lambda f: ["prepare", "no.csv", "--out", "out"], ("no.csv", "sources")),
    "a folder": (lambda f: ["prepare", f, "--out", "out"], ("folder",)),
    "header only": (bad_log("h.csv", HEADER), ("h.csv", "header")),
    "empty": (bad_log("e.csv", ""), ("e.csv", "empty")),
    "no item column": (bad_log("c.csv", "user,thing\n1,2\n"), ("c.csv", "thing", "item")),
    "no time": (bad_log("t.csv", HEADER + ROWS + "1,2,soon\n"), ("t.csv", "line 102", "soon")),
    "no id": (bad_log("i.csv", HEADER + ROWS + ",2,1700000000\n"), ("i.csv", "'user'", "102")),
    "wrong separator": (bad_log("s.csv", "user;item\n1;2\n"), ("s.csv", "';'")),
    "truncated gzip": (cut_gzip, ("cut.csv.gz", "cut short")),
    "columns not there": (lambda f: [*log(f)[:2], "--columns", "user=who", "--out", "out"],
                          ("'who'", "visitor")),
    "columns without a name": (lambda f: [*log(f), "--columns", "visitor"], ("--columns", "user=")),
    "a column twice": (lambda f: [*log(f), "--columns", "user=channel"], ("user twice",)),
    "bad condition": (lambda f: [*log(f), "--where", "channel"], ("channel", "column op value")),
    "all filtered away": (lambda f: [*log(f), "--where", "channel=='shop'"], ("nothing is left",)),
    "bad protocol": (lambda f: [*log(f), "--protocol", "random"], ("random", "leave-one-out")),
    "bad policy": (lambda f: [*log(f), "--duplicates", "some"], ("some", "collapse")),
    "given without a file": (lambda f: [*log(f), "--protocol", "given"], ("split file",)),
    "something stands there": (lambda f: [*log(f)[:-1], f / "data"], ("data", "exists")),
    "columns of a public one": (lambda f: ["prepare", "ml-100k", "--columns", "user=a", "--out",
                                           "out"], ("ml-100k", "--columns")),
    "not fetched": (lambda f: ["prepare", "ml-100k", "--out", "out"], ("dimerec fetch ml-100k",)),
    "unknown public one": (lambda f: ["fetch", "ml-3m"], ("ml-3m", "ml-1m")),
    "no such place": (lambda f: ["fetch", "ml-1m", "--from", "no"], ("no such file",)),
    "no dataset": (lambda f: ["train", f, "--out", "out"], ("card.json",)),
    "no such dataset": (lambda f: ["audit", "no"], ("no", "dimerec prepare")),
    "no recipe": (lambda f: ["train", f / "data", "--config", "no", "--out", "out"],
                  ("'no'", "popularity")),
    "bad setting": (lambda f: ["train", f / "data", "--set", "training.max_steps=0", "--out",
                               "out"], ("training.max_steps = 0", ">= 1")),
    "unknown setting": (lambda f: ["train", f / "data", "--set", "training.steps=9", "--out",
                                   "out"], ("steps", "max_steps")),
    "a run stands there": (lambda f: ["train", f / "data", "--out", f / "counted"], ("--resume",)),
    "no bundle": (lambda f: ["evaluate", f / "data", f / "data"], ("not a bundle",)),
    "no such bundle": (lambda f: ["recommend", "no", "--history", "1"], ("no: no such",)),
    "broken bundle": (broken_bundle, ("weights.safetensors", "SHA-256")),
    "no such split": (lambda f: ["evaluate", f / "counted", f / "data", "--split", "x"], ("'x'",)),
    "no such positions": (lambda f: ["evaluate", f / "counted", f / "data", "--positions", "x"],
                          ("'x'", "last-20-percent")),
    "history is broken JSON": (lambda f: ["recommend", f / "counted", "--history", "[1"],
                               ("history 1", "JSON")),
    "too few": (lambda f: ["recommend", f / "counted", "--history", "1", "-n", "0"], ("'-n'",)),
    "no verb": (lambda f: ["prepar"], ("'prepar'", "prepare")),
    "no option": (lambda f: ["sources", "--al"], ("--al", "dimerec sources --help")),
    "no global option": (lambda f: ["--al"], ("--al", "dimerec --help")),
    "option missing": (lambda f: ["prepare", "log.csv"], ("'--out'", "dimerec prepare --help")),
    "argument missing": (lambda f: ["audit"], ("'DATASET'", "dimerec audit --help")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_leaves_nothing(case: str, run, shop_folder: Path):
    words, needles = CASES[case]
    result = run(*words(shop_folder), code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("dimerec") and result.stderr.count("\n") == 1, result.stderr
    for needle in needles:
        assert needle in result.stderr
    assert not Path("out").exists()


def test_another_catalogue_is_not_evaluated(run, shop_folder: Path):
    run(*other_catalogue(shop_folder))
    result = run("evaluate", shop_folder / "counted", "other", code=2)
    assert result.stdout == "" and "vocabulary" in result.stderr


def test_a_disk_that_refuses_is_one_line(run, shop_folder: Path):
    Path("file").write_text("")
    words = [*log(shop_folder)[:-1], "file/out"]
    result = run(*words, code=2)
    assert "file" in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["--debug", "audit", "no"], ["audit", "no", "--debug"]])
def test_debug_shows_where_it_came_from(run, words: list[str]):
    assert isinstance(run(*words, code=1).exception, DataError)


def test_debug_by_the_environment(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIMEREC_DEBUG", "1")
    assert isinstance(run("audit", "no", code=1).exception, DataError)


def test_ctrl_c_is_one_line(run, shop_folder: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(dataset: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dimerec.data.audit.audit", interrupted)
    result = run("audit", shop_folder / "data", code=130)
    assert (result.stdout, result.stderr) == ("", "dimerec: interrupted\n")


def test_an_error_of_our_own_making_is_not_hidden(run, shop_folder: Path, monkeypatch):
    def wrong(dataset: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("dimerec.data.audit.audit", wrong)
    result = run("audit", shop_folder / "data", code=1)
    assert isinstance(result.exception, ZeroDivisionError)


def test_a_message_of_several_lines_becomes_one(run, shop_folder: Path, monkeypatch):
    def wrong(dataset: object) -> None:
        raise DataError("first\n   second\n\nthird")

    monkeypatch.setattr("dimerec.data.audit.audit", wrong)
    assert run("audit", shop_folder / "data", code=2).stderr == "dimerec: first second third\n"
