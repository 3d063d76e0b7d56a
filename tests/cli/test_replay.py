"""`dimerec replay`: twice, from the middle, with bad lines, into a store that fails."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from dimerec.cli import replay
from dimerec.serving.history import open_store

STORE = "sqlite:///h.db"


def write(lines: list[object], path: str = "events.jsonl") -> None:
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    Path(path).write_text("".join(f"{line}\n" for line in text))


def event(n: int, user: int | str = "u") -> dict:
    return {"user": user, "item": n, "time": n, "event_id": f"e{n}"}


def stored(user: int | str = "u", tenant: str = "default") -> list:
    store = open_store(STORE)
    items = store.read(tenant, user, 99_999)
    store.close()
    return items


def test_a_file_is_replayed_and_replayed_again(run, ask):
    write([*(event(n) for n in range(1200)), "", event(3)])
    shown = run("replay", "events.jsonl", "--store", STORE + "?keep=2000").stdout
    assert [line.split() for line in shown.splitlines()] == [
        ["stored", "1,200"], ["there", "already", "1"], ["bad", "lines", "0"]
    ]  # fmt: skip
    before = open_store(STORE + "?keep=2000")
    assert before.read("default", "u", 9999) == list(range(1200))
    before.close()
    again = ask("replay", "events.jsonl", "--store", STORE + "?keep=2000")
    assert again == {"stored": 0, "there_already": 1201, "bad_lines": 0, "next": 1203}


def test_the_tenant_and_the_line_to_begin_at(run):
    write([event(n) for n in range(10)])
    run("replay", "events.jsonl", "--store", STORE, "--tenant", "shop", "--from", 8)
    assert stored(tenant="shop") == [7, 8, 9] and stored() == []


def test_bad_lines_are_named_and_passed_over(run):
    long = json.dumps({**event(5), "item": "x" * replay.LINE})
    write(
        [event(1), "not json", {"user": 1}, event(2), {**event(4), "time": 1.7e12}, long, event(3)]
    )
    with Path("events.jsonl").open("ab") as file:
        file.write(b'{"user": "\xff", "item": 1, "time": 1, "event_id": "b"}\n')
        file.write(json.dumps(event(6)).encode())  # and no newline at the end
    done = run("replay", "events.jsonl", "--store", STORE, code=1)
    named = [line.split(":")[0] for line in done.stderr.splitlines()]
    assert named == [f"events.jsonl, line {n}" for n in (2, 3, 5, 6, 8)]
    assert "missing required field `item`" in done.stderr and "longer than" in done.stderr
    assert stored() == [1, 2, 3, 6]


def test_of_many_bad_lines_some_are_named(run):
    write([event(1), *["?"] * 1300])
    done = run("replay", "events.jsonl", "--store", STORE, code=1)
    assert len(done.stderr.splitlines()) == replay.SHOWN + 1
    assert done.stderr.splitlines()[-1] == "and 1,280 more bad lines"


def test_from_a_pipe(run):
    words = [Path(sys.executable).with_name("dimerec"), "replay", "-", "--store", STORE]
    text = "".join(f"{json.dumps(event(n))}\n" for n in range(3))
    subprocess.run(words, input=text, text=True, check=True, capture_output=True)
    assert stored() == [0, 1, 2]


def test_a_store_that_fails_half_way_says_where_to_go_on(run, monkeypatch):
    write([event(n) for n in range(1200)])
    from dimerec.errors import StoreUnavailable
    from dimerec.serving.sqlite import SqliteStore

    calls, append = [], SqliteStore.append

    def failing(self, tenant, events):
        calls.append(len(events))
        if len(calls) == 3:
            raise StoreUnavailable("h.db: the disk is full")
        return append(self, tenant, events)

    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "append", failing)
        done = run("replay", "events.jsonl", "--store", STORE + "?keep=2000", code=2)
    assert len(done.stderr.splitlines()) == 1
    assert "the disk is full" in done.stderr and "--from 1001, all before" in done.stderr
    done = run("replay", "events.jsonl", "--store", STORE + "?keep=2000", "--from", 1001, "--json")
    assert json.loads(done.stdout)["stored"] == 200


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["events.jsonl", "--store", "h.db"], "not the URL of a store"),
        (["no.jsonl", "--store", STORE], "no.jsonl: No such file"),
        (["events.jsonl", "--store", "redis://127.0.0.1:1/0"], "no answer"),
        (["events.jsonl"], "either --store or --url"),
        (["events.jsonl", "--store", STORE, "--url", "http://h"], "either --store or --url"),
    ],
)
def test_what_cannot_be_done_is_one_line(run, words: list[str], what: str):
    write([event(1)])
    done = run("replay", *words, code=2)
    assert what in done.stderr and len(done.stderr.splitlines()) == 1


def test_against_a_service(run, monkeypatch):
    """The bytes that a service gets; the service itself is tested with this client elsewhere."""
    got: list[tuple[str, str | None, list]] = []

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            got.append((self.path, self.headers["authorization"], body["events"]))
            answer = json.dumps({"stored": len(body["events"]), "duplicates": 0}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("DIMEREC_TOKEN", "t0ken")
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    write([event(n) for n in range(600)])
    with HTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        shown = json.loads(run("replay", "events.jsonl", "--url", url, "--json").stdout)
        server.shutdown()
        thread.join()
    assert shown["stored"] == 600
    assert [(path, token, len(events)) for path, token, events in got] == [
        ("/v1/events", "Bearer t0ken", 500), ("/v1/events", "Bearer t0ken", 100)
    ]  # fmt: skip
    assert [e for *_, events in got for e in events] == [event(n) for n in range(600)]
