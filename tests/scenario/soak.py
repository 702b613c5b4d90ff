"""The soak: anchors flap at random while a stock OpenBao restarts again and again.

    python -m tests.scenario.soak --minutes 10 --seed 7

A real ``kluis serve`` on six real anchors and paper seals a real OpenBao. A round has two parts:

- *frozen*: some places are lost or hang, then kluis is restarted or its keyring locked and
  released, and the server restarted. If the rule is satisfied by what is left the server has to
  come back; if not it must stay sealed, until places are restored or paper is entered, one after
  another, and enough is there.
- *flapping*: places are lost, hang and come back, a change every 0.2 to 2 s; meanwhile the server
  is killed or stopped, the keyring locked or kluis killed, and a key in Transit rotated. Then, as
  soon as enough places are there, the server has to come back.

Before the server's every return something was written to it, and has to be there. In the first half
one kluis process lives all the time: its memory, threads and open files must not grow. In the
second half it is killed as well. The seed fixes what is done, and in which order; when is up to the
machine. A run of ten minutes or more writes ``bench/results/soak.json``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom
from typing import Final

import pytest

from bench.processes import end_on_sigterm
from bench.results import DIRECTORY
from tests.scenario import evidence
from tests.scenario.guarded import KEYRING, Guarded
from tests.scenario.rounds import RULE, Soak, SoakFailed
from tests.scenario.vitals import Vitals
from tests.scenario.weather import Weather
from tests.support.places import places, toml

ANCHOR_TIMEOUT_S: Final = 5
FULL_MIN: Final = 10.0


@contextmanager
def soaking(folder: Path, seed: int, say: Callable[[str], None]) -> Iterator[Soak]:
    """Everything that a soak needs, running, in this folder."""
    with pytest.MonkeyPatch.context() as environment, places(folder, environment) as found:
        known = evidence.of_places(found)
        configuration = toml(found, f"timeout_s = {ANCHOR_TIMEOUT_S}") + KEYRING
        with (
            Guarded(folder, configuration.replace("RULE", RULE)) as guarded,
            Vitals(lambda: guarded.service.pid) as vitals,
        ):
            known |= evidence.of_keyring(guarded)
            weather = Weather(found)
            try:
                yield Soak(weather, guarded, vitals, known, seed, say)
            finally:
                weather.thaw()


def main() -> int:
    """The exit code: 0 when nothing happened that must not."""
    options = _options()
    end_on_sigterm()
    told = sys.stderr if options.output == "json" else sys.stdout

    def say(line: str) -> None:
        print(line, flush=True, file=told)

    say(f"seed {options.seed}")
    folder = Path(tempfile.mkdtemp(prefix="kluis-soak-"))
    try:
        with soaking(folder, options.seed, say) as soak:
            summary = soak.run(options.minutes)
    except SoakFailed as error:
        say(f"error: {error}\n\nall logs are kept in {folder}")
        return 1
    except BaseException:
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)
    for line in summary.lines():
        say(line)
    if options.output == "json":
        json.dump(summary.as_json(), sys.stdout, indent=1)
    quick = options.minutes < FULL_MIN
    if results := options.results or (None if quick else DIRECTORY):
        summary.result().write(results, quick=quick)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.scenario.soak")
    parser.add_argument("--minutes", type=float, default=FULL_MIN)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument("--output", choices=("text", "json"), default="text")
    parser.add_argument(
        "--results",
        type=Path,
        help="the folder for soak.json: a full run writes it to bench/results",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
