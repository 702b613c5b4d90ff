"""Writes the vectors: ``python -m tests.vectors.generate``. ``--check`` only compares."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.vectors import document_faults, opening_faults, parts, valid, value_faults
from tests.vectors.scheme import Object

FOLDER: Final = Path(__file__).parent


def vectors() -> Iterator[tuple[str, Object]]:
    """Every vector by its path in this folder, without ``.json``."""
    for module in (valid, document_faults, value_faults, opening_faults, parts):
        yield from module.vectors()


def made() -> dict[Path, str]:
    """The text of every file."""
    result: dict[Path, str] = {}
    for name, vector in vectors():
        path = FOLDER / f"{name}.json"
        assert path not in result, f"{name} is made twice"
        result[path] = json.dumps(vector, indent=2, ensure_ascii=True) + "\n"
    return result


def on_disk() -> dict[Path, str]:
    """The files as they lie there."""
    return {path: path.read_text() for path in FOLDER.rglob("*.json")}


def main() -> int:
    """Write the files anew, and remove those that are no longer made."""
    files = made()
    if "--check" in sys.argv[1:]:
        return int(files != on_disk())
    for path in on_disk().keys() - files.keys():
        path.unlink()
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
