"""`dimerec serve`: what cannot be served is refused in one line, before anything listens."""

import socket

import pytest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing", "--port", "0"], "nothing: no such directory"),
        (["{run}", "--port", "0", "--host", "0.0.0.0"], "there must be tokens"),
        (["{run}", "--port", "0", "--set", "limits.batch=0"], "limits.batch = 0"),
        (["{run}", "--port", "0", "--set", "nonsense=1"], "unknown key `nonsense`"),
        (["{run}", "--settings", "none.toml"], "none.toml: not readable settings"),
        (["{run}", "--port", "0", "--store", "mysql://x"], "mysql://x: not the URL of a store"),
        (["{run}", "--port", "0", "--store", "sqlite:////dev/null/x.db"], "/dev/null"),
        (["{run}", "--host", "127.0.0.1", "--port", "{taken}"], "choose another with --host"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(run, shop_folder, words, said):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        filled = [w.format(run=shop_folder / "counted", taken=port) for w in words]
        result = run("serve", *filled, code=2)
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("dimerec: ") and said in line
