"""Settings: strict, and never a service that is open by mistake."""

from pathlib import Path

import pytest

from dimerec.errors import ConfigError
from dimerec.serving import settings
from tests.serving.servers import token_settings


def test_defaults_are_safe():
    known = settings.load()
    assert (known.host, known.port, known.admin, known.tokens) == (
        "127.0.0.1",
        8000,
        "loopback",
        [],
    )
    assert known.store == "sqlite:///histories.db"


def test_a_file_and_overrides(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text("port = 9000\n[limits]\nbatch = 8\n" + token_settings("a", ["read"], "t", 5))
    known = settings.load(file, ["limits.batch=16", "host=0.0.0.0", "drain=3"])
    assert (known.port, known.limits.batch, known.host, known.drain) == (9000, 16, "0.0.0.0", 3.0)
    assert (known.tokens[0].tenant, known.tokens[0].rate) == ("t", 5.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('host = "0.0.0.0"', "there must be tokens"),
        ('host = ""', "there must be tokens"),
        ('host = "192.168.0.1"', "there must be tokens"),
        ("prot = 1", "unknown key `prot`"),
        ("port = 70000", "port = 70000"),
        ("[limits]\nbatch = 0", "limits.batch = 0"),
        ("[limits]\nrate = nan", "must be a finite number"),
        ("port = ", "not readable settings in TOML"),
        ('[[tokens]]\nname = "a"\nsha256 = "x"\nroles = ["read"]', "tokens.0.sha256"),
        (token_settings("a", []), "tokens.0.roles"),
        (token_settings("a", ["root"]), "tokens.0.roles"),
        (token_settings("a b", ["read"]), "tokens.0.name"),
        (token_settings("a", ["read"], "../x"), "tokens.0.tenant"),
        (token_settings("a", ["read"]) * 2, "a name of its own"),
        (
            token_settings("a", ["read"]) + token_settings("a", ["read"]).replace('"a"', '"b"', 1),
            "a sha256 of its own",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, text, words):
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        settings.load(file)
    assert words in str(refused.value) and str(file) in str(refused.value)


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match="nowhere.toml: not readable"):
        settings.load(Path("nowhere.toml"))
