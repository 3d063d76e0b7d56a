"""Name -> module, the only dynamic import. A file in a package is found by its own name."""

import importlib
import pkgutil
from types import ModuleType

from dimerec.errors import ConfigError


def names(package: str) -> list[str]:
    """Module names in `package` (dotted), sorted; nothing is imported but the package itself."""
    path = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))


def load(package: str, name: str) -> ModuleType:
    """The module `package.name`; ConfigError naming the choices when there is none."""
    known = names(package)
    if name not in known:
        kind = package.rpartition(".")[2]
        raise ConfigError(f"no such name in {kind}: {name!r} (known: {', '.join(known)})")
    return importlib.import_module(f"{package}.{name}")
