"""``python -m bench.first_open CONFIGURATION DOCUMENT``: what a process takes to open for once.

What every kluis needs is imported before the clock starts, so that the time of the import is that
of the anchors' kinds and the libraries they bring. Written to standard output: a line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import uvloop

from bench.processes import BenchFailed, clean_environment
from kluis import compose, configuration
from kluis.engine.opening import Opening
from kluis.keyring import document as documents
from kluis.keyring.document import Document

REPOSITORY: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class FirstOpening:
    """What it took: to import and make the anchors, and then to open."""

    import_ms: float
    open_ms: float


def first_opening(path: Path, document: Document) -> FirstOpening:
    """Open a document in a process of its own. Raises BenchFailed."""
    written = path.with_suffix(".document")
    written.write_bytes(documents.to_bytes(document))
    done = subprocess.run(
        [sys.executable, "-m", "bench.first_open", str(path), str(written)],
        capture_output=True,
        text=True,
        env=clean_environment(),
        cwd=REPOSITORY,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise BenchFailed(f"a first opening by {path.stem} failed: {done.stderr[-2000:]}")
    return FirstOpening(**json.loads(done.stdout))


def main() -> int:
    """Import, open once, tell the times; the exit code."""
    file = configuration.read(Path(sys.argv[1]))
    document = documents.from_bytes(Path(sys.argv[2]).read_bytes())
    started_s = time.perf_counter()
    anchors = compose.draw(file).anchors
    import_s = time.perf_counter() - started_s

    async def opening_s() -> float:
        opening = Opening(document)
        started_s = time.perf_counter()
        if await opening.ask(anchors) is None:
            raise BenchFailed(f"not opened: {opening.failures}")
        return time.perf_counter() - started_s

    found = FirstOpening(import_s * 1000, uvloop.run(opening_s()) * 1000)
    print(json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
