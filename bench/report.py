"""``python -m bench.report``: pictures and tables for the documents, from ``bench/results``.

Between the markers in ``docs/PERFORMANCE.md`` stands only what this writes, so that the numbers
there are those of the JSON files.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from bench import pictures
from bench.processes import BenchFailed
from bench.results import DIRECTORY, Result, markdown, tables, target_heading, target_row

DOCUMENT: Final = DIRECTORY.parent.parent / "docs" / "PERFORMANCE.md"
_BLOCK: Final = re.compile(r"(<!-- bench:([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_ABSENT: Final = "Not measured yet: `make bench` does."

Found = dict[str, tuple[Result, dict[str, object]]]
"""Each result by its name, and the whole of its file."""


def render(results: Path, document: Path = DOCUMENT) -> None:
    """Draw the pictures, and fill in every marked block. Raises BenchFailed."""
    found = _read(results)
    document.write_text(_filled(document, found), encoding="utf-8")
    pictures.draw({name: result for name, (result, _) in found.items()}, document.parent / "images")


def filled(results: Path, document: Path = DOCUMENT) -> str:
    """The document as ``render`` would write it."""
    return _filled(document, _read(results))


def _read(results: Path) -> Found:
    return {path.stem: Result.read(path) for path in sorted(results.glob("*.json"))}


def _filled(document: Path, found: Found) -> str:
    blocks = _blocks(found)
    text = document.read_text(encoding="utf-8")
    return _BLOCK.sub(lambda m: f"{m[1]}{blocks.get(m[2], _ABSENT)}\n{m[3]}", text)


def _blocks(found: Found) -> dict[str, str]:
    """The text of each block, by its name: one for each result, and two about all of them."""
    blocks = {name: markdown(tables(result)) for name, (result, _) in found.items()}
    if found:
        targets = [target for result, _ in found.values() for target in result.targets]
        blocks["targets"] = markdown([target_heading(), *map(target_row, targets)])
        blocks["machine"] = _machines([value for _, value in found.values()])
    return blocks


def _machines(values: list[dict[str, object]]) -> str:
    """On what, and when; several lines when the results are of several runs."""
    lines = dict.fromkeys(map(_machine, values))
    return "\n".join(f"- {line}" for line in lines)


def _machine(value: dict[str, object]) -> str:
    machine = value["machine"]
    assert isinstance(machine, dict)
    quick = " (a quick run, too short to rely on)" if value["quick"] else ""
    return (
        f"measured {value['measured']}{quick}: {machine['cores']} cores"
        f" ({machine['architecture']}), {machine['memory_gib']} GiB,"
        f" {machine['system']}; kluis {machine['kluis']}, OpenBao {machine['openbao']},"
        f" Python {machine['python']}, OpenSSL {machine['openssl']}, wrk {machine['wrk']}"
    )


def main() -> int:
    """Render ``bench/results``; the exit code."""
    try:
        render(DIRECTORY)
    except BenchFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
