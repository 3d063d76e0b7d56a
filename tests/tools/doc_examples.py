"""The examples of the documentation are held to the code: `python -m tests.tools.doc_examples`.

Fenced blocks of README.md, CONTRIBUTING.md and docs/ are read. `python` must compile, and what it
imports from dimerec must exist; `toml` must parse; in `console` and `bash`, each `dimerec` line
must name a command, options and no more arguments than there are, and each `make` line a target.
A fence that says `python sketch` is let through. Relative links must lead somewhere.
"""

import ast
import importlib
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def pages(root: Path = ROOT) -> list[Path]:
    """The Markdown files that are checked."""
    top = [root / "README.md", root / "CONTRIBUTING.md"]
    return [*(p for p in top if p.exists()), *sorted((root / "docs").rglob("*.md"))]


def check(page: Path, root: Path = ROOT) -> list[str]:
    """One line for each thing on `page` that would not work."""
    text = page.read_text("utf-8")
    out = [f"link to {t}, which does not exist" for t in _links(text) if not _leads(page, t)]
    for match in FENCE.finditer(text):
        indent, language, note, body = match.groups()
        if "sketch" in note:
            continue
        body = re.sub(f"^{indent}", "", body, flags=re.MULTILINE)
        line = text[: match.start()].count("\n") + 1
        out += [f"block at line {line}: {p}" for p in _block(language, body, root)]
    return [f"{page.relative_to(root)}: {p}" for p in out]


def _links(text: str) -> Iterator[str]:
    for target in LINK.findall(FENCE.sub("", text)):
        if not re.match(r"[a-z]+:", target):
            yield target


def _leads(page: Path, target: str) -> bool:
    return (page.parent / target).exists()


def _block(language: str, body: str, root: Path) -> Iterator[str]:
    if language == "python":
        yield from _python(body)
    elif language == "toml":
        try:
            tomllib.loads(body)
        except tomllib.TOMLDecodeError as e:
            yield f"not TOML: {e}"
    elif language in ("console", "bash", "sh", "shell"):
        for line in lines(body, prompt=language == "console"):
            yield from _command(line, root)


def _python(body: str) -> Iterator[str]:
    try:
        tree = ast.parse(body)
        compile(body, "<example>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError as e:
        yield f"does not compile: {e}"
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "dimerec":
            for alias in node.names:
                if not _exists(str(node.module), alias.name):
                    yield f"{node.module} has no {alias.name}"
        elif (
            isinstance(node, ast.Attribute)
            and ast.unparse(node.value) == "dimerec"
            and not _exists("dimerec", node.attr)
        ):
            yield f"dimerec has no {node.attr}"


def _exists(module: str, name: str) -> bool:
    try:
        if hasattr(importlib.import_module(module), name):
            return True
        importlib.import_module(f"{module}.{name}")
    except ImportError:
        return False
    return True


def lines(body: str, prompt: bool) -> Iterator[str]:
    """The commands of a shell block, continuations joined; with `prompt`, those after `$ `."""
    for line in body.replace("\\\n", " ").splitlines():
        if prompt:
            if not line.startswith("$ "):
                continue
            line = line[2:]
        yield from (part for part in re.split(r"&&|\|\||[;|]", line) if part.strip())


def _command(line: str, root: Path) -> Iterator[str]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError as e:
        yield f"`{line.strip()}`: {e}"
        return
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    if words and Path(words[0]).name == "dimerec":
        yield from (f"`{line.strip()}`: {p}" for p in _dimerec(words[1:]))
    elif words and words[0] == "make":
        known = re.findall(r"^([a-z-]+):", (root / "Makefile").read_text("utf-8"), re.MULTILINE)
        for word in words[1:]:
            if "=" not in word and not word.startswith("-") and word not in known:
                yield f"`{line.strip()}`: make has no target {word}"


def _dimerec(words: list[str]) -> Iterator[str]:
    from typer.main import get_command

    from dimerec.cli import app

    command: Any = get_command(app)
    options = _options(command)
    words = [w.split(">")[0] if re.match(r"\d?>", w) else w for w in words]
    free: list[str] = []
    given: set[str] = set()
    while words:
        word, _, value = words.pop(0).partition("=")
        if word.startswith("-") and not re.fullmatch(r"-?-?\d.*|-", word):
            option = options.get(word)
            if option is None:
                yield f"no option {word}"
                return
            given.add(option.name)
            if not option.is_flag and not value:
                if not words:
                    yield f"option {word} needs a value"
                    return
                words.pop(0)
        elif hasattr(command, "commands"):
            if word not in command.commands:
                yield f"no command {word}"
                return
            command = command.commands[word]
            options = _options(command)
        elif word:
            free.append(word)
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    if given & {"help", "version"}:
        return
    if len(free) > len(arguments) and not any(a.nargs == -1 for a in arguments):
        yield f"{len(free)} arguments, but at most {len(arguments)} are taken"
    needed = [a.name for a in arguments if a.required]
    if len(free) < len(needed):
        yield f"missing argument {needed[len(free)].upper()}"
    for name, option in options.items():
        if option.required and option.name not in given and name == option.opts[0]:
            yield f"missing option {name}"


def _options(command: Any) -> dict[str, Any]:
    """Every spelling of the options of a command (and of help, which it makes by itself)."""
    names = ["-h", "--help"]
    asking = SimpleNamespace(name="help", is_flag=True, required=False, opts=names)
    options: dict[str, Any] = dict.fromkeys(names, asking)
    for parameter in command.params:
        if parameter.param_type_name == "option":
            for name in (*parameter.opts, *parameter.secondary_opts):
                options[name] = parameter
    return options


if __name__ == "__main__":
    found = [problem for page in pages() for problem in check(page)]
    print("\n".join(found) or "documentation examples: ok")
    sys.exit(bool(found))
