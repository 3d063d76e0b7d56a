"""Looking up, fetching and reading by name, whichever the dataset."""

import hashlib
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from dimerec.data import prepare, sources
from dimerec.data.fetch import Remote
from dimerec.data.sources import Counts
from dimerec.errors import DataError
from tests.data.sources.samples import lay


@pytest.fixture(autouse=True)
def nowhere(monkeypatch) -> None:
    monkeypatch.delenv("DIMEREC_DATA", raising=False)


def test_every_source_says_what_people_need() -> None:
    everything = sources.all()
    names = [s.name for s in everything]
    assert names == sorted(set(names))
    assert set(names) >= {"ml-latest-small", "ml-10m", "yoochoose-clicks", "kuairec-big"}
    for s in everything:
        assert s.title and s.licence and s.citation and s.home.startswith("https://")
        assert "\n" not in s.licence
        assert s.counts.users <= s.counts.events
        assert s.remotes or s.obtain or s.embedded
        assert all(r.url.startswith("https://") for r in s.remotes)
        assert all(r.md5 is None or len(r.md5) == 32 for r in s.remotes)
        assert sources.get(s.name) is s


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(DataError, match=r"no such dataset: 'ml-2m' \(known: .*ml-1m"):
        sources.read("ml-2m")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ml-1m is not here yet: dimerec fetch ml-1m"):
        sources.read("ml-1m")
    for call in (sources.read, partial(sources.fetch, from_path=tmp_path / "no")):
        with pytest.raises(DataError, match="no such file or folder"):
            call("ml-1m", tmp_path / "no")
    with pytest.raises(DataError, match=r"ml-1m is read from ratings\.dat, which is not there"):
        sources.fetch("ml-1m", tmp_path, tmp_path)
    with pytest.raises(DataError, match="prepared layout only"):
        sources.fetch("yoochoose-1-64", tmp_path)


def sample(monkeypatch, tmp_path: Path, **changes) -> Path:
    """The zip of a small ML-10M as it is published; the source is told its counts."""
    folder = lay(tmp_path / "samples")
    source = sources.get("ml-10m")
    events, _ = source.parse(source.files(folder))
    counts = Counts(events.height, events["user"].n_unique(), events["item"].n_unique())
    small = msgspec.structs.replace(source, **({"counts": counts} | changes))
    monkeypatch.setattr(sources, "all", lambda: [small])
    with zipfile.ZipFile(tmp_path / "ml-10m.zip", "w") as z:
        for name in ("ratings.dat", "movies.dat"):
            z.write(folder / name, f"ml-10M100K/{name}")
        z.writestr("ml-10M100K/README.html", "terms")
        z.writestr("ml-10M100K/tags.dat", "not wanted")
    return tmp_path / "ml-10m.zip"


def test_an_archive_is_unpacked_or_read_as_it_is(monkeypatch, tmp_path: Path) -> None:
    archive = sample(monkeypatch, tmp_path)
    whole = sources.read("ml-10m", archive)
    folder = sources.fetch("ml-10m", tmp_path / "data", archive)
    assert folder == tmp_path / "data" / "ml-10m"
    assert {p.name for p in folder.iterdir()} == {"ratings.dat", "movies.dat", "README.html"}
    again = sources.read("ml-10m", folder)
    assert again.log.frame.equals(whole.log.frame)
    assert again.origin == whole.origin
    content = (folder / "ratings.dat").read_bytes()
    assert again.log.report["sha256"] == hashlib.sha256(content).hexdigest()
    assert again.log.report["source"] == "ml-10m"
    assert sources.fetch("ml-10m", tmp_path / "data") == folder  # there already: no network


def test_missing_rows_are_noticed(monkeypatch, tmp_path: Path) -> None:
    folder = sources.fetch("ml-10m", tmp_path / "data", sample(monkeypatch, tmp_path))
    log = folder / "ratings.dat"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:-1]))
    with pytest.raises(DataError, match=rf"ml-10m has {len(lines)} events .* but here are"):
        sources.read("ml-10m", folder)
    assert len(sources.read("ml-10m", folder, complete=False).log) == len(lines) - 1


def test_download_unpack_read_prepare(monkeypatch, tmp_path: Path) -> None:
    archive = sample(monkeypatch, tmp_path)
    content = archive.read_bytes()
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/ml-10m.zip"
        remote = Remote(url, len(content), hashlib.md5(content).hexdigest())
        sample(monkeypatch, tmp_path, remotes=(remote,))
        archive.write_bytes(content)  # made anew, its files may be dated two seconds later
        folder = sources.fetch("ml-10m", tmp_path / "data")
        loose = tuple(Remote(url.replace("ml-10m.zip", f"samples/{n}")) for n in ("ratings.dat",))
        sample(monkeypatch, tmp_path, remotes=loose)
        single = sources.fetch("ml-10m", tmp_path / "loose")
        server.shutdown()
        thread.join()
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["ml-10m"]
    assert [p.name for p in single.iterdir()] == ["ratings.dat"]
    loaded = sources.read("ml-10m", folder)
    dataset = prepare.prepare(loaded.log, tmp_path / "set", items=loaded.items)
    assert dataset.card.events == len(loaded.log)
    titles = {item.title for item in dataset.metadata()}
    assert all(title and title.startswith("Made-Up Film") for title in titles)


def test_two_candidates_are_not_guessed_between(tmp_path: Path) -> None:
    for name in ("a", "b"):
        lay(tmp_path / name)
    with pytest.raises(DataError, match=r"ratings\.dat is there more than once"):
        sources.fetch("ml-10m", tmp_path / "out", tmp_path)
    assert sources.fetch("ml-10m", tmp_path / "out", tmp_path / "a") == tmp_path / "a"


def test_the_folder_of_the_environment_comes_first(monkeypatch, tmp_path: Path) -> None:
    sample(monkeypatch, tmp_path)
    lay(tmp_path / "held" / "ml-10m")
    monkeypatch.setenv("DIMEREC_DATA", str(tmp_path / "held"))
    assert sources.fetch("ml-10m", tmp_path / "into") == tmp_path / "held" / "ml-10m"
    assert sources.read("ml-10m").origin["layout"] == "original"
