"""Where each equation of the paper lives: docstrings in, docs/paper-map.md out.

A docstring of the package names its equations in lines such as `Implements: Eq. 16`,
`Implements: Eqs. 1-3 (a note)` or `Implements: Eqs. 5-7; Alg. 2`.

    python -m tests.tools.paper_map            # render
    python -m tests.tools.paper_map --check    # fail where the page is stale or a home missing
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "paper-map.md"

TITLES = {
    "Eq. 1": "one noising step",
    "Eq. 2": "many noising steps at once",
    "Eq. 3": "alpha-bar, the signal that is left",
    "Eq. 4": "noising by reparameterisation",
    "Eq. 5": "the reverse chain",
    "Eq. 6": "one reverse step",
    "Eq. 7": "the posterior of a step, given x_0",
    "Eq. 8": "the posterior's mean",
    "Eq. 9": "the posterior's variance",
    "Eq. 10": "the posterior's mean with predicted noise for x_0",
    "Eq. 11": "the same, simplified",
    "Eq. 12": "loss of a network that predicts noise",
    "Eq. 13": "guidance out of a history",
    "Eq. 14": "the user's vector out of guidance, x_t and t",
    "Eq. 15": "rule-based guidance: the last K",
    "Eq. 16": "self-attentive guidance: the weights",
    "Eq. 17": "self-attentive guidance: the weighted sum",
    "Eq. 18": "the interest closest to the target",
    "Eq. 19": "guidance loss",
    "Eq. 20": "the conditional denoiser",
    "Eq. 21": "reconstruction loss",
    "Eq. 22": "sampled softmax loss of the prediction",
    "Eq. 23": "the whole loss",
    "Alg. 1": "training",
    "Alg. 2": "the reverse process",
}
EXCEPTIONS = {
    "Eq. 10": "not used: it rewrites Eq. 8 for a network that predicts noise; ours predicts x_0",
    "Eq. 11": "not used: Eq. 10 simplified",
    "Eq. 12": "not used: Eq. 21 takes its place, since the network predicts x_0",
}


@dataclass(frozen=True)
class Home:
    """One claim of one docstring: `what` is a key of TITLES, `detail` lines or a note."""

    what: str
    detail: str
    file: Path
    name: str


def claims(text: str) -> Iterator[tuple[str, str]]:
    """(key of TITLES, detail) of each part of what stands after `Implements:`."""
    for part in text.split(";"):
        match = re.fullmatch(r"\s*(Eqs?|Alg)\. (\d+)(?:-(\d+))?(.*?)\.?\s*", part)
        if not match:
            raise ValueError(f"cannot read {part.strip()!r} in 'Implements: {text}'")
        kind, first, last, detail = match.groups()
        if bool(last) != (kind == "Eqs"):
            raise ValueError(f"'Eq. n', 'Eqs. n-m' or 'Alg. n', not {part.strip()!r}")
        for number in range(int(first), int(last or first) + 1):
            yield f"{kind.removesuffix('s')}. {number}", detail.strip(" ()")


def homes(source: Path) -> list[Home]:
    """Every claim in the docstrings under `source`, in the order of files and lines."""
    out = []
    for path in sorted(source.rglob("*.py")):
        for name, docstring in _docstrings(ast.parse(path.read_text("utf-8"))):
            for line in re.findall(r"^\s*Implements: (.+)$", docstring, re.MULTILINE):
                out += [Home(what, detail, path, name) for what, detail in claims(line)]
    return out


def _docstrings(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
        yield prefix, ast.get_docstring(node) or ""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield from _docstrings(child, f"{prefix}.{child.name}".lstrip("."))


def problems(found: list[Home]) -> list[str]:
    """What breaks 'each equation and algorithm has exactly one home, exceptions aside'."""
    out = []
    for what in [*TITLES, *sorted({h.what for h in found} - set(TITLES))]:
        places = [f"{h.file.name}:{h.name or 'module'}" for h in found if h.what == what]
        if what not in TITLES:
            out.append(f"{what} is not in the paper, but {', '.join(places)} implements it")
        elif what in EXCEPTIONS and places:
            out.append(f"{what} is listed as an exception, but lives in {', '.join(places)}")
        elif what not in EXCEPTIONS and not places:
            out.append(f"{what} ({TITLES[what]}) has no home")
        elif len(places) > 1:
            out.append(f"{what} has {len(places)} homes: {', '.join(places)}")
    return out


def render(found: list[Home], root: Path = ROOT) -> str:
    """The page."""
    where = {h.what: h for h in found}
    rows = []
    for what, title in TITLES.items():
        home = where.get(what)
        if home:
            file = home.file.relative_to(root).as_posix()
            module = file.removeprefix("src/dimerec/")
            place = f"[`{module}`](../{file})" + (f" `{home.name}`" if home.name else "")
            place += f" ({home.detail})" if home.detail else ""
        else:
            place = EXCEPTIONS.get(what, "no home")
        rows.append(f"| {what} | {title} | {place} |")
    head = (
        "# Paper map",
        "",
        "Generated from the docstrings by `make docs`; do not edit. Each equation and algorithm",
        "of the paper has exactly one home in the source, and a test holds it to that.",
        "",
        "| paper | what | home |",
        "| --- | --- | --- |",
    )
    return "\n".join([*head, *rows]) + "\n"


def main(arguments: list[str]) -> int:
    found = homes(ROOT / "src")
    page, wrong = render(found), problems(found)
    if "--check" in arguments:
        if not PAGE.exists() or PAGE.read_text("utf-8") != page:
            wrong.append(f"{PAGE.relative_to(ROOT)} is stale: run `make docs`")
    else:
        PAGE.write_text(page, "utf-8")
    print("\n".join(wrong) or "paper map: ok")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
