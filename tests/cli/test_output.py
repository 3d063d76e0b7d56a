"""What each verb prints for people and for programs."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from dimerec import config
from dimerec.cli import output
from dimerec.data import sources
from tests.cli import shop


def test_prepare_says_what_each_filter_removed(run, shop_folder: Path):
    words = ["prepare", shop_folder / "log.csv.gz", "--columns", shop.COLUMNS, "--out", "out"]
    walks = shop.events()
    sold = Counter(item for walk in walks.values() for item in walk)
    least = sorted(sold.values())[2] + 1  # three items or more have fewer
    result = run(*words, "--where", "channel==web", "--min-item-events", least)
    total = sold.total()
    assert f"Read {total} rows of log.csv.gz" in result.stdout
    assert "epoch milliseconds" in result.stdout
    card = json.loads(Path("out/card.json").read_text())
    lines = result.stdout.splitlines()
    for name, events, items in [
        *((f["name"], -f["events_removed"], -f["items_removed"]) for f in card["filters"]),
        ("what is left", card["events"], card["items"]),
    ]:
        cells = next(line for line in lines if line.strip().startswith(name)).split()
        assert (cells[-3], cells[-1]) == (f"{events:,}", f"{items:,}")
    assert card["filters"][1]["items_removed"] >= 3


def test_a_public_dataset_takes_other_conditions_and_its_own_titles(run, ask):
    found = ask("prepare", "ml-latest-small", "--out", "liked", "--where", "rating>=4.5")["card"]
    plain = sources.read("ml-latest-small")
    assert found["filters"][0]["name"] == "where rating>=4.5"
    assert 0 < found["events"] < len(plain.log)
    titles = [i["title"] for i in json.loads(Path("liked/items.json").read_text())]
    assert "Toy Story (1995)" in titles


def test_a_fetched_dataset_is_found_again(run, ask, monkeypatch: pytest.MonkeyPatch):
    embedded = sources.get("ml-latest-small").embedded
    assert embedded is not None
    place = ask("fetch", "ml-latest-small", "--from", embedded)["path"]
    assert Path(place).samefile(embedded)
    # as if it were not inside the package
    monkeypatch.setattr(sources, "held", lambda source: None)
    result = run("prepare", "ml-latest-small", "--out", "out", code=2)
    assert "dimerec fetch ml-latest-small" in result.stderr
    shutil.copytree(embedded, "data/ml-latest-small")
    run("prepare", "ml-latest-small", "--out", "out")
    assert ask("fetch", "ml-latest-small")["path"] == "data/ml-latest-small"


def test_the_given_split_is_taken(ask, shop_folder: Path):
    users = list(shop.events())
    parts = ["train"] * (len(users) - 7) + ["valid"] * 3 + ["test"] * 4
    rows = "".join(f"{u},{p}\n" for u, p in zip(users, parts, strict=True))
    Path("split.csv").write_text("user,split\n" + rows)
    words = ["prepare", shop_folder / "log.csv.gz", "--columns", shop.COLUMNS, "--out", "out"]
    card = ask(*words, "--protocol", "given", "--given", "split.csv")["card"]
    assert [card["splits"][p]["users"] for p in ("train", "valid", "test")] == [
        len(users) - 7,
        3,
        4,
    ]


def test_overwriting_is_asked_for(run, shop_folder: Path):
    words = ["prepare", shop_folder / "log.csv.gz", "--columns", shop.COLUMNS, "--out", "out"]
    run(*words)
    run(*words, code=2)
    run(*words, "--overwrite")


def test_columns_may_hold_commas_and_come_in_parts(ask):
    rows = "".join(f"{u},{i}\n" for u in range(20) for i in range(4))
    Path("log.csv").write_text('who,"what, exactly"\n' + rows)
    words = ["prepare", "log.csv", "--columns", "user=who", "--columns", "item=what, exactly"]
    assert ask(*words, "--out", "a")["card"]["items"] == 4
    words = ["prepare", "log.csv", "--columns", "item=what, exactly,user=who"]
    assert ask(*words, "--out", "b")["card"]["origin"]["columns"]["item"] == "what, exactly"


def test_evaluate_prints_what_its_json_says(run, ask, shop_folder: Path):
    words = ["evaluate", shop_folder / "counted", shop_folder / "data", "--split", "valid"]
    found = ask(*words)
    shown = run(*words).stdout
    for name in ("hr", "ndcg", "mrr"):
        cells = next(line for line in shown.splitlines() if line.strip().startswith(name)).split()
        assert cells[1:] == [f"{found['metrics'][f'{name}@{n}']:.2%}" for n in (10, 20, 50)]
    assert f"{found['card']['queries']:,} queries of {found['card']['users']} users" in shown
    assert "Careful" not in shown
    # a bundle and its run are the same thing
    assert ask(words[0], shop_folder / "counted/bundle", *words[2:]) == found


def test_evaluate_takes_every_choice(ask, shop_folder: Path):
    words = ["evaluate", shop_folder / "counted", shop_folder / "data"]
    card = ask(*words, "--positions", "last", "--hide-seen", "--seed", 3)["card"]
    assert (card["split"], card["positions"], card["hide_seen"]) == ("test", "last", True)
    assert card["seeds"]["evaluation"] == 3
    assert card["queries"] == card["users"]


def test_evaluate_warns_of_another_dataset(run, shop_folder: Path):
    words = ["prepare", shop_folder / "log.csv.gz", "--columns", shop.COLUMNS]
    run(*words, "--protocol", "leave-one-out", "--out", "loo")
    assert "Careful" in run("evaluate", shop_folder / "counted", "loo").stdout


def test_recommendations_are_the_next_on_the_shelf(ask, shop_folder: Path):
    words = ["--history", "sku-03,sku-04", "--history", "sku-19", "-n", 3]
    found = ask("recommend", shop_folder / "counted", *words)["recommendations"]
    assert [r["items"][0]["id"] for r in found] == ["sku-05", "sku-00"]
    assert [r["history"] for r in found] == [["sku-03", "sku-04"], ["sku-19"]]


def test_seen_items_are_kept_when_asked_for(ask, shop_folder: Path):
    popular = shop_folder / "popular"
    unknown = ask("recommend", popular, "--history", "", "-n", 1)["recommendations"][0]
    assert unknown["source"] == "popularity"
    anything = ["recommend", popular, "--history", "sku-05", "-n", 1, "--keep-seen"]
    best = ask(*anything)["recommendations"][0]
    first = best["items"][0]["id"]
    assert best["source"] == "model"
    again = ["recommend", popular, "--history", first, "-n", 1]
    assert ask(*again)["recommendations"][0]["items"][0]["id"] != first
    assert ask(*again, "--keep-seen")["recommendations"][0]["items"][0]["id"] == first


def test_recommend_says_where_an_answer_comes_from(run, shop_folder: Path):
    shown = run("recommend", shop_folder / "counted", "--history", "sku-03,no,nix").stdout
    assert "Thing [red] 03 é (sku-03)" in shown
    assert "Unknown and ignored: no, nix" in shown
    assert "From the model, cooccurrence" in shown
    rows = [line.split() for line in shown.splitlines() if "sku-04" in line]
    assert rows[0][:6] == ["1", "sku-04", "Thing", "[red]", "04", "é"]
    shown = run("recommend", shop_folder / "counted", "--history", "no").stdout
    assert "From popularity" in shown


def test_histories_come_on_standard_input(ask, shop_folder: Path):
    lines = 'sku-03,sku-04\n\n["sku-19"]\n'
    found = ask("recommend", shop_folder / "counted", "-n", 2, input=lines)["recommendations"]
    assert [r["history"] for r in found] == [["sku-03", "sku-04"], [], ["sku-19"]]
    assert [r["source"] for r in found] == ["model", "popularity", "model"]


def test_standard_input_that_is_no_text(run, shop_folder: Path):
    result = run("recommend", shop_folder / "counted", input=b"\xff\xfe", code=2)
    assert "standard input is not utf-8 text" in result.stderr


def test_audit_fails_on_leakage(run, ask, shop_folder: Path):
    assert ask("audit", shop_folder / "data")["level"] in ("ok", "warn")
    shutil.copytree(shop_folder / "data", "data")
    items = Path("data/items.npy")
    content = bytearray(items.read_bytes())
    content[-4] ^= 1
    items.write_bytes(content)
    shown = run("audit", "data", code=1).stdout
    assert "fail  content" in shown and "1 fail" in shown
    assert json.loads(run("audit", "data", "--json", code=1).stdout)["level"] == "fail"


def test_models_and_recipes_are_all_there(run, ask):
    found = ask("models")
    assert [r["name"] for r in found["recipes"]] == config.shipped()
    assert all(r["about"] for r in found["recipes"])
    names = {m["name"] for m in found["models"]}
    assert {"dimerec", "sasrec", "popularity"} <= names
    assert {r["model"] for r in found["recipes"]} <= names
    assert all(m["about"] for m in found["models"])
    shown = run("models").stdout
    assert all(name in shown for name in names)


def test_sources_are_all_there(run, ask):
    found = {s["name"]: s for s in ask("sources")}
    assert list(found) == [s.name for s in sources.all()]
    assert found["ml-latest-small"]["here"] and not found["ml-100k"]["here"]
    shown = run("sources").stdout
    assert all(name in shown for name in found)
    assert "4.9 MB" in shown


def test_train_takes_a_file_of_ones_own(ask, shop_folder: Path):
    Path("mine.toml").write_text('model = "popularity"\n')
    found = ask("train", shop_folder / "data", "--config", "mine.toml", "--out", "run")
    assert found["model"] == "popularity"
    assert found["bundle"] == "run/bundle"
    assert Path("run/bundle/manifest.json").exists()


def test_train_logs_to_a_tracker(run, shop_folder: Path):
    run("train", shop_folder / "data", "--config", "popularity", "--out", "run", "--tensorboard")
    assert list(Path("run/tensorboard").iterdir())


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0.0 B"),
        (999, "999.0 B"),
        (1000, "1.0 kB"),
        (4_924_029, "4.9 MB"),
        (2 * 10**12, "2000.0 GB"),
    ],
)
def test_sizes_for_people(count: int, text: str):
    assert output.size(count) == text


def test_logs_go_to_standard_error_and_leave_nothing_behind(run, shop_folder: Path):
    import logging

    before = list(logging.getLogger("dimerec").handlers)
    result = run("train", shop_folder / "data", "--config", "popularity", "--out", "r", "--json")
    assert "validation" in result.stderr and json.loads(result.stdout)
    assert logging.getLogger("dimerec").handlers == before
