"""The page and the files beside it say what the code does: settings, metrics, codes, roles."""

import re
from pathlib import Path

import msgspec

from dimerec.serving import settings
from dimerec.serving.app import STATUS
from dimerec.serving.metrics import Metrics
from dimerec.serving.routes import ROUTES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "serving.md").read_text("utf-8")


def exported() -> set[str]:
    """Names as Prometheus sees them, without the suffixes of a histogram."""
    text = Metrics().text().decode()
    return {n for n in re.findall(r"^# TYPE (\w+)", text, re.MULTILINE) if n.startswith("dimerec")}


def test_the_metrics_of_the_page_are_those_that_there_are():
    listed = set(re.findall(r"`(dimerec_\w+)`", PAGE))
    assert listed == exported()


def test_alerts_name_metrics_that_there_are():
    text = (DOCS / "serving" / "alerts.yml").read_text("utf-8")
    expressions = re.sub(r"summary:.*", "", text)
    named = {re.sub("_bucket$", "", n) for n in re.findall(r"\bdimerec_\w+", expressions)}
    assert named and named <= exported()
    assert len(re.findall(r"- alert: \w+", text)) == len(set(re.findall(r"- alert: (\w+)", text)))
    assert text.count("expr:") == text.count("summary:") == text.count("- alert:")


def test_the_settings_beside_the_page_are_settings():
    known = settings.load(DOCS / "serving" / "settings.toml")
    assert [token.name for token in known.tokens] == ["web", "deploy"]
    for kind, prefix in ((settings.Settings, ""), (settings.Limits, "limits.")):
        for field in msgspec.structs.fields(kind):
            if field.name not in ("limits", "tokens"):
                assert f"`{prefix}{field.name}`" in PAGE, field.name


def test_every_code_and_role_stands_on_the_page():
    for _, status, code in STATUS:
        if code not in ("fault", "gone"):
            row = next(r for r in PAGE.splitlines() if r.startswith("|") and code in r)
            assert str(status) in row
    codes = {code for _, _, code in STATUS}
    for route in ROUTES:
        assert set(route.errors) <= codes
        assert route.role is None or f"| `{route.role}` |" in PAGE


def test_the_unit_and_the_image_stop_it_as_it_wants_to_be_stopped():
    unit = (DOCS / "serving" / "dimerec.service").read_text("utf-8")
    image = (DOCS / "serving" / "Dockerfile").read_text("utf-8")
    assert "KillSignal=SIGTERM" in unit and "Restart=on-failure" in unit
    assert 'ENTRYPOINT ["dimerec", "serve"' in image and "USER dimerec" in image
    for name in re.findall(r"^COPY (.*) \S+$", image, re.MULTILINE):
        for path in name.split():
            assert (DOCS.parent / path).exists(), path
