"""`dimerec protocols` on a small shop."""

from pathlib import Path


def test_for_people(run, shop_folder: Path):
    shown = run(
        *("protocols", shop_folder / "counted", shop_folder / "data"),
        *("--only", "full-ranking, comirec,comirec-corrected"),
    ).stdout
    assert "NDCG over" in shown and "comirec-corrected" in shown and "leave-one-out" not in shown


def test_for_programs(ask, run, shop_folder: Path):
    words = ("protocols", shop_folder / "counted", shop_folder / "data", "--only", "leave-one-out")
    (row,) = ask(*words)
    assert row["protocol"]["normaliser"].startswith("1 (one target)")
    plain = ask("evaluate", shop_folder / "counted", shop_folder / "data", "--positions", "last")
    assert row["result"]["hr"]["10"] == plain["metrics"]["hr@10"]


def test_a_catalogue_of_twenty_has_no_hundred_others(run, shop_folder: Path):
    refused = run("protocols", shop_folder / "counted", shop_folder / "data", code=2).stderr
    assert "leave one-against-100 out" in refused
    assert (
        "no protocol 'x'"
        in run(
            *("protocols", shop_folder / "counted", shop_folder / "data", "--only", "x"), code=2
        ).stderr
    )
