"""No source file of the package grows past 400 lines: `python -m tests.tools.file_sizes`."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT = 400


def too_long(folder: Path, limit: int = LIMIT) -> list[str]:
    """One line for each Python file under `folder` with more than `limit` lines."""
    out = []
    for path in sorted(folder.rglob("*.py")):
        lines = len(path.read_text("utf-8").splitlines())
        if lines > limit:
            out.append(f"{path.relative_to(folder.parent)}: {lines} lines, at most {limit} allowed")
    return out


if __name__ == "__main__":
    found = too_long(ROOT / "src")
    print("\n".join(found) or "file sizes: ok")
    sys.exit(bool(found))
