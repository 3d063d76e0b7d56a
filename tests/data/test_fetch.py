"""Downloads against a real HTTP server that behaves and misbehaves; archives sound and evil."""

import hashlib
import random
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dimerec.data.fetch import Remote, download, unpack
from dimerec.errors import DataError

BODY = random.Random(0).randbytes(3_000_000)
MD5 = hashlib.md5(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `body` at every path; `plan` says how each request in turn is mistreated."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = BODY
        self.ranges = True
        self.plan: list[Callable[[BaseHTTPRequestHandler], object] | int] = []
        self.asked: list[str | None] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up, as `download` does when it has seen enough, is no error."""

    def remote(self, bytes: int | None = None, md5: str | None = None) -> Remote:
        return Remote(f"http://127.0.0.1:{self.server_address[1]}/data/set.zip", bytes, md5)


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        self.server.asked.append(span)
        step = self.server.plan.pop(0) if self.server.plan else None
        if callable(step):
            step(self)
            return None
        body, start = self.server.body, 0
        if span and self.server.ranges:
            match = re.fullmatch(r"bytes=(\d+)-", span)
            assert match, span
            start = int(match[1])
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if isinstance(step, int):  # break off after so many bytes
            self.wfile.write(body[start : start + step])
            self.close_connection = True
            return None
        self.wfile.write(body[start:])
        return None

    def log_message(self, format: str, *args: object) -> None:
        pass


def status(code: int) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as s:
        thread = threading.Thread(target=s.serve_forever, args=(0.01,))
        thread.start()
        yield s
        s.shutdown()
        thread.join()


def get(remote: Remote, folder: Path, attempts: int = 4, timeout: float = 5.0) -> Path:
    return download(remote, folder, attempts=attempts, pause=0.0, timeout=timeout)


def test_whole_file_arrives_once(server: Server, tmp_path: Path) -> None:
    remote = server.remote(len(BODY), MD5)
    path = get(remote, tmp_path / "new" / "folder")
    assert path.read_bytes() == BODY
    assert [p.name for p in path.parent.iterdir()] == ["set.zip"]
    assert get(remote, path.parent) == path
    assert server.asked == [None]  # the second call found it there and right


def test_a_damaged_earlier_download_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(b"x" + BODY[1:])
    assert get(server.remote(len(BODY), MD5), tmp_path).read_bytes() == BODY


def test_broken_transfers_go_on_where_they_stopped(server: Server, tmp_path: Path) -> None:
    server.plan = [1_000_000, 0, 700_001]
    assert get(server.remote(None, MD5), tmp_path).read_bytes() == BODY
    assert server.asked == [None, *["bytes=1000000-"] * 2, "bytes=1700001-"]


def test_the_next_call_goes_on_too(server: Server, tmp_path: Path) -> None:
    server.plan = [2_000_000, 0]
    with pytest.raises(DataError, match=r"stopped 2 times, last at byte 2,000,000"):
        get(server.remote(), tmp_path, attempts=2)
    assert (tmp_path / "set.zip.part").stat().st_size == 2_000_000
    assert not (tmp_path / "set.zip").exists()
    assert get(server.remote(), tmp_path).read_bytes() == BODY
    assert server.asked[-1] == "bytes=2000000-"
    assert not (tmp_path / "set.zip.part").exists()


def test_a_server_without_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.plan = [1_000_000]
    assert get(server.remote(None, MD5), tmp_path).read_bytes() == BODY
    assert server.asked == [None, "bytes=1000000-"]


@pytest.mark.parametrize("md5", [None, MD5])
def test_a_finished_part_needs_no_more_bytes(server: Server, tmp_path: Path, md5) -> None:
    (tmp_path / "set.zip.part").write_bytes(BODY)
    assert get(server.remote(None, md5), tmp_path).read_bytes() == BODY
    assert server.asked == [f"bytes={len(BODY)}-"]


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set.zip.part").write_bytes(BODY + b"more")
    assert get(server.remote(None, MD5), tmp_path).read_bytes() == BODY


def test_an_answer_with_another_range_is_not_appended(server: Server, tmp_path: Path) -> None:
    def shifted(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 7-{len(BODY) - 1}/{len(BODY)}")
        handler.send_header("Content-Length", str(len(BODY) - 7))
        handler.end_headers()
        handler.wfile.write(BODY[7:])

    (tmp_path / "set.zip.part").write_bytes(BODY[:100])
    server.plan = [shifted]
    assert get(server.remote(None, MD5), tmp_path).read_bytes() == BODY


def test_wrong_checksum_is_refused_and_discarded(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"MD5 is {MD5}, published was {'0' * 32}.*--from"):
        get(server.remote(len(BODY), "0" * 32), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_size_is_refused_before_the_transfer(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"offers 3,000,000 bytes where 9 were published"):
        get(server.remote(9), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_not_found_is_final(server: Server, tmp_path: Path) -> None:
    server.plan = [status(404)]
    with pytest.raises(DataError, match=r"set\.zip: the server answered 404 Not Found.*--from"):
        get(server.remote(), tmp_path)
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.plan = [status(503), status(503)]
    assert get(server.remote(None, MD5), tmp_path).read_bytes() == BODY
    server.plan = [status(503)] * 4
    with pytest.raises(DataError, match=r"stopped 4 times.*503"):
        get(server.remote(), tmp_path / "elsewhere")


def test_silence_is_not_waited_for_for_ever(server: Server, tmp_path: Path) -> None:
    release = threading.Event()
    server.plan = [lambda _: release.wait(10)] * 2
    try:
        with pytest.raises(DataError, match="stopped 2 times"):
            get(server.remote(), tmp_path, timeout=0.1, attempts=2)
    finally:
        release.set()


def test_refusal_and_no_network(tmp_path: Path) -> None:
    with Server() as closed:
        remote = closed.remote()
    with pytest.raises(DataError, match=r"cannot be reached \(.*refused.*--from"):
        get(remote, tmp_path)
    with pytest.raises(DataError, match=r"cannot be reached .*--from"):
        get(Remote("http://no-such-host.invalid/set.zip"), tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        get(Remote("http://127.0.0.1:1/set.zip"), tmp_path / "file")


# Archives


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, content in members.items():
            z.writestr(name, content)
    return path


def test_only_the_named_members_are_unpacked_flat(tmp_path: Path) -> None:
    given = {
        "ml-1m/": b"",
        "ml-1m/ratings.dat": b"r",
        "ml-1m/README": b"terms",
        "ml-1m/users.dat": b"private",
        "__MACOSX/ml-1m/ratings.dat": b"junk",
        "ml-1m/._ratings.dat": b"junk",
    }
    out = unpack(archive(tmp_path / "a.zip", given), tmp_path / "out", ["ratings.dat"], ["README"])
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {
        "ratings.dat": b"r",
        "README": b"terms",
    }


@pytest.mark.parametrize(
    "name", ["../ratings.dat", "a/../../ratings.dat", "/tmp/ratings.dat", r"..\ratings.dat", "C:/r"]
)
def test_evil_names_are_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    evil = archive(tmp_path / "evil.zip", {"ok/ratings.dat": b"fine", name: b"evil"})
    with pytest.raises(DataError, match="outside itself"):
        unpack(evil, tmp_path / "deep" / "out", ["ratings.dat"])
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["evil.zip"]


def test_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("ratings.dat")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        z.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="is a link"):
        unpack(tmp_path / "a.zip", tmp_path / "out", ["ratings.dat"])


def test_lacking_and_doubled_members(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.zip: the archive lacks ratings\.dat"):
        unpack(archive(tmp_path / "a.zip", {"x": b""}), tmp_path / "out", ["ratings.dat"])
    twice = archive(tmp_path / "b.zip", {"a/ratings.dat": b"1", "b/ratings.dat": b"2"})
    with pytest.raises(DataError, match=r"holds ratings\.dat twice"):
        unpack(twice, tmp_path / "out", ["ratings.dat"])
    assert not (tmp_path / "out").exists()


def test_damaged_archives_leave_nothing(tmp_path: Path) -> None:
    sound = archive(tmp_path / "a.zip", {"ratings.dat": BODY}).read_bytes()
    flipped = bytearray(sound)
    flipped[1_500_000] ^= 0xFF
    for broken in (sound[:2_000_000], bytes(flipped), b"", b"<html>not found</html>"):
        (tmp_path / "a.zip").write_bytes(broken)
        with pytest.raises(DataError, match=r"a\.zip: not a sound zip archive"):
            unpack(tmp_path / "a.zip", tmp_path / "out", ["ratings.dat"])
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]
