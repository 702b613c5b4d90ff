"""``python -m bench``: run the benchmarks, print their tables, write their results.

A full run writes ``bench/results/<name>.json``, the pictures in ``docs/images`` and the tables in
``docs/PERFORMANCE.md``. A quick run only shows that everything works: it writes nothing but where
``--results`` says.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import anchors, memory, quorum, report, restart, status, storm, throughput, unlock, watch
from bench.processes import BenchFailed, end_on_sigterm
from bench.results import DIRECTORY, Result, markdown, tables, target_heading, target_row
from bench.scale import FULL, QUICK, Scale, say
from kluis.errors import KluisError

BENCHMARKS: dict[str, Callable[[Scale], Result]] = {
    "restart": restart.run,
    "unlock": unlock.run,
    "throughput": throughput.run,
    "storm": storm.run,
    "memory": memory.run,
    "status": status.run,
    "anchors": anchors.run,
    "quorum": quorum.run,
    "watch": watch.run,
}


def main() -> int:
    """The exit code: 0 when every benchmark could be carried out, whatever it found."""
    options = _options()
    end_on_sigterm()
    scale = QUICK if options.quick else FULL
    folder = options.results or (None if options.quick else DIRECTORY)
    results: list[Result] = []
    failed = False
    for name in options.names or BENCHMARKS:
        result = _run(name, scale)
        if result is None:
            failed = True
            continue
        results.append(result)
        if folder is not None:
            result.write(folder, quick=scale.quick)
    _verdicts(results)
    if folder == DIRECTORY and not scale.quick:
        failed |= _render()
    return int(failed)


def _render() -> bool:
    """Whether the documents could not be written."""
    try:
        report.render(DIRECTORY)
    except BenchFailed as error:
        say(f"the results are written, the documents are not: {error}")
        return True
    return False


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="few rounds: does it work?")
    parser.add_argument("--results", type=Path, help="the folder for the JSON files")
    options = parser.parse_args()
    for name in options.names:
        if name not in BENCHMARKS:
            parser.error(f"there is no benchmark {name}: choose from {', '.join(BENCHMARKS)}")
    return options


def _run(name: str, scale: Scale) -> Result | None:
    say(f"\n{name}: {(sys.modules[BENCHMARKS[name].__module__].__doc__ or '').splitlines()[0]}")
    started_s = time.monotonic()
    try:
        result = BENCHMARKS[name](scale)
    except (BenchFailed, KluisError) as error:
        say(f"  could not be carried out: {error}")
        return None
    say(f"  {time.monotonic() - started_s:.0f} s\n")
    say(markdown(tables(result)))
    return result


def _verdicts(results: list[Result]) -> None:
    targets = [target for result in results for target in result.targets]
    if targets:
        say("\nTargets\n")
        say(markdown([target_heading(), *map(target_row, targets)]))


if __name__ == "__main__":
    sys.exit(main())
