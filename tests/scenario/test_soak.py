"""A short soak; and that a soak finds what it is there to find. ``make soak`` runs a long one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.results import Result
from kluis.keyring import policy
from tests.scenario import rounds
from tests.scenario.evidence import leaks
from tests.scenario.rounds import SoakFailed
from tests.scenario.soak import soaking
from tests.scenario.verdict import Memory
from tests.scenario.vitals import Life, Vital

pytestmark = pytest.mark.alone

SEED = 1
MINUTES = 0.2
ALL = "tpm and hsm and cloud and east and nas and west"


def say(line: str) -> None:
    """What pytest shows when the test fails."""
    sys.stdout.write(f"{line}\n")


@pytest.mark.timeout(300)
def test_it_comes_back_when_enough_is_there_and_never_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "PAUSE_S", (0.1, 0.6))
    say(f"seed {SEED}")
    with soaking(tmp_path, SEED, say) as soak:
        summary = soak.run(MINUTES, least_rounds=2)
        assert summary.course.rounds >= 2
        assert len(summary.course.come_backs_s) == 2 * summary.course.rounds
        assert summary.openings > summary.course.rounds
        summary.result().write(tmp_path, quick=True)
        read, _ = Result.read(tmp_path / "soak.json")
        assert all(target.met for target in read.targets)

        soak.expect(policy.parse(ALL))  # that is not the keyring's rule
        with pytest.raises(SoakFailed, match=f"^seed {SEED}, round .* must not be"):
            soak.run(MINUTES)


GROWS = {"rss_mib": (10.0, "MiB resident"), "threads": (2, "threads"), "open_files": (2, "files")}


@pytest.mark.parametrize("name", GROWS)
def test_what_grows_is_found(name: str) -> None:
    a_minute, word = GROWS[name]
    assert not Memory.of([life_of({})]).leaks()
    (found,) = Memory.of([life_of({name: a_minute})]).leaks()
    assert word in found


def life_of(a_minute: dict[str, float]) -> Life:
    """Five minutes of a process that takes so much more every minute, and a bit to and fro."""
    looks = []
    for second in range(300):
        more = {name: amount * second / 60 for name, amount in a_minute.items()}
        rss_mib = 100 + more.get("rss_mib", 0.0) + second % 3
        threads = 6 + int(more.get("threads", 0)) + second % 2
        looks.append(Vital(second, rss_mib, threads, 20 + int(more.get("open_files", 0))))
    return Life(1, looks, looks[::10])


def test_a_secret_in_a_log_is_found() -> None:
    log = {"kluis.log": b'{"event": "opened", "seen": "the PIN is 8d1f0c55aa02e971"}\n'}
    assert list(leaks(log, {"the PIN": b"8d1f0c55aa02e971"})) == ["the PIN (raw) is in kluis.log"]
    assert not list(leaks(log, {"the PIN": b"8d1f0c55aa02e972"}))
