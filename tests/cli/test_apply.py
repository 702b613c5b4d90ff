"""``kluis apply``: every edit of the configuration, with a running service and without one."""

from __future__ import annotations

import base64
import json
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.bao import Answer
from tests.support.house import (
    ANCHORS,
    CLIENT,
    FACADE,
    KEYRING,
    KLUIS,
    House,
    Terminal,
    answers,
    one_error,
)

NAS = '\n[anchors.nas]\nkind = "static"\nfile = "nas.key"\n'
SECOND_KEY = '\n[keyrings.homelab.keys.colossus]\nkind = "transit"\n'
VAULT_ROOM = """
[anchors.vault-room]
kind = "passphrase"
memory_mib = 19
iterations = 1
lanes = 1
"""
WIDER = ("disk or family", "disk or nas or family")
NARROWER = ("disk or family", "disk")
PLAINTEXT = base64.b64encode(b"the root key").decode()


@pytest.fixture(params=["with a service", "without a service"])
def applied(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[House, dict[str, str]]]:
    """A house that was applied once, and the facade's tokens; apply runs in both ways."""
    house = House(tmp_path / "house")
    made = house.apply()
    house.make_key("nas.key")
    with ExitStack() as running:
        if request.param == "with a service":
            running.enter_context(house.serve_open())
        yield house, {**made["tokens"], "share 1": made["shares"]["family"][0]}


def homelab(house: House) -> tuple[str, int, int]:
    found = house.json("status")["keyrings"]["homelab"]
    return found["state"], found["epoch"], found["revision"]


def test_a_new_key_and_a_new_client_are_added(applied: tuple[House, dict[str, str]]) -> None:
    house, _ = applied
    house.edit(more=SECOND_KEY + '\n[clients.colossus]\nkeys = ["homelab/colossus"]\n')
    done = house.apply()
    assert list(done["tokens"]) == ["colossus"]
    assert done["shares"] == {}
    assert sorted(house.json("key", "list")["keys"]) == ["homelab/bletchley", "homelab/colossus"]
    assert homelab(house) == ("open", 1, 2)


def test_a_rule_that_grows_keeps_root_epoch_and_paper(
    applied: tuple[House, dict[str, str]],
) -> None:
    house, _ = applied
    paper = house.document().read_text()
    house.edit(WIDER, more=NAS)
    done = house.apply()
    assert done["shares"] == {}
    assert homelab(house) == ("open", 1, 2)
    assert house.anchors()["nas"]["state"] == "ok"
    identifier = json.loads(paper)["tree"]["any"][1]["identifier"]
    tree = json.loads(house.document().read_text())["tree"]["any"]
    assert [leaf["identifier"] for leaf in tree if "people" in leaf] == [identifier]


def test_a_rule_that_shrinks_raises_the_epoch_and_rotates_every_key(
    applied: tuple[House, dict[str, str]],
) -> None:
    house, _ = applied
    house.edit(NARROWER)
    house.apply()
    assert homelab(house) == ("open", 2, 2)
    assert house.json("key", "list")["keys"]["homelab/bletchley"]["latest"] == 2


def test_new_paper_makes_the_old_paper_useless(applied: tuple[House, dict[str, str]]) -> None:
    house, once = applied
    done = house.apply("--reissue", "family")
    assert len(done["shares"]["family"]) == 3
    assert homelab(house) == ("open", 2, 2)
    with ExitStack() as running:
        if not house.control_path().exists():
            running.enter_context(house.serve_open())
        house.text("lock", "homelab")
        old = house.kluis("unlock", "homelab", stdin=once["share 1"] + "\n")
        assert "of no set" in one_error(old)[0]
        new = "\n".join(done["shares"]["family"][1:])
        assert house.text("unlock", "homelab", stdin=new) == "homelab is open\n"


@pytest.mark.parametrize(
    ("old", "what"),
    [
        (CLIENT, "dismiss the client bletchley"),
        ('[keyrings.homelab.keys.bletchley]\nkind = "transit"\n', "destroy the key bletchley"),
    ],
)
def test_nothing_is_destroyed_without_being_told_to(
    old: str, what: str, applied: tuple[House, dict[str, str]]
) -> None:
    house, _ = applied
    house.edit(more=SECOND_KEY)
    house.apply()
    house.edit((CLIENT, '\n[clients.bletchley]\nkeys = ["homelab/colossus"]\n'))
    house.apply()
    client = '\n[clients.bletchley]\nkeys = ["homelab/colossus"]\n'
    house.edit((client if old == CLIENT else old, "\n"))
    error = house.refuses("apply", "--yes")
    assert what in error["seen"]
    assert "--allow-destroy" in error["next"]
    house.apply("--allow-destroy")
    assert house.apply()["keyrings"]["homelab"]["changed"] is False


def test_a_replaced_key_file_is_healed(applied: tuple[House, dict[str, str]]) -> None:
    house, _ = applied
    house.edit(WIDER, more=NAS)
    house.apply()
    house.make_key("nas.key")
    done = house.apply()
    assert done["keyrings"]["homelab"]["steps"] == ["seal the leaf of nas anew"]
    house.key.unlink()
    assert house.json("verify", "homelab", code=1)["homelab"]["anchors"]["nas"]["state"] == "ok"
    assert homelab(house)[1] == 1


def test_an_anchor_that_is_set_up_wrongly_is_not_taken_into_a_rule(
    applied: tuple[House, dict[str, str]],
) -> None:
    house, _ = applied
    (house.folder / "nas.key").unlink()
    house.edit(WIDER, more=NAS)
    error = house.refuses("apply", "--yes")
    assert (error["class"], error["seen"][:13]) == ("Missing", "anchors.nas: ")


def test_an_anchor_that_is_away_is_sealed_by_a_later_apply(
    applied: tuple[House, dict[str, str]],
) -> None:
    house, _ = applied
    house.edit(WIDER, more=NAS)
    house.apply()
    (house.folder / "nas.key").rename(house.folder / "away.key")
    house.edit(("disk or nas or family", "disk or nas"))
    done = house.apply()["keyrings"]["homelab"]
    assert (done["epoch"], list(done["away"])) == (2, ["nas"])
    assert house.anchors()["nas"]["seen"].endswith("not sealed yet")
    (house.folder / "away.key").rename(house.folder / "nas.key")
    steps = house.apply()["keyrings"]["homelab"]["steps"]
    healed = answers(house) and steps == []  # by the service, at one of its surveys
    assert healed or steps == ["seal the leaf of nas anew"]
    assert house.anchors()["nas"]["state"] == "ok"


def test_a_service_does_not_apply_another_file_than_its_own(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    house.apply()
    shutil.copy(house.file, house.folder / "other.toml")
    with house.serve_open():
        error = house.refuses("apply", "--yes", "--config", "other.toml")
        assert f"the running service reads {house.file}, not " in error["seen"]


def test_a_client_that_changes_keeps_its_token(applied: tuple[House, dict[str, str]]) -> None:
    house, _ = applied
    house.edit((CLIENT, CLIENT + 'networks = ["127.0.0.0/8"]\n'))
    assert house.apply()["tokens"] == {}
    assert house.json("client", "list")["clients"]["bletchley"]["networks"] == ["127.0.0.0/8"]


def test_a_service_takes_a_shrunken_rule_over_without_being_locked(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    token = house.apply()["tokens"]["bletchley"]
    with house.serve_open() as service:
        before = encrypt(house, token)
        house.edit(NARROWER)
        house.apply()
        after = encrypt(house, token)
        assert (before[:9], after[:9]) == ("vault:v1:", "vault:v2:")
        assert decrypt(house, token, before).body["data"] == {"plaintext": PLAINTEXT}
        assert decrypt(house, token, after).body["data"] == {"plaintext": PLAINTEXT}
        assert "locked" not in service.log


def test_the_old_document_can_not_open_what_was_sealed_after_a_rule_shrank(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    made = house.apply()
    token = made["tokens"]["bletchley"]
    thief = House(tmp_path / "thief")
    shutil.copytree(house.state, thief.state)
    (thief.folder / "anchor.key").write_bytes(house.key.read_bytes())
    house.edit(NARROWER)
    house.apply()
    with house.serve_open():
        after = encrypt(house, token)
    with thief.serve_open():  # it has the old document, the old paper and even the key of the disk
        assert decrypt(thief, token, after).status == 400


def encrypt(house: House, token: str) -> str:
    answer = house.call("PUT", "homelab/encrypt/bletchley", {"plaintext": PLAINTEXT}, token)
    assert answer.status == 200, answer
    data = answer.body["data"]
    assert isinstance(data, dict)
    return str(data["ciphertext"])


def decrypt(house: House, token: str, ciphertext: str) -> Answer:
    return house.call("PUT", "homelab/decrypt/bletchley", {"ciphertext": ciphertext}, token)


@pytest.mark.parametrize("served", [True, False])
def test_a_locked_keyring_can_not_be_changed(served: bool, tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    house.apply()
    with ExitStack() as running:
        if served:
            running.enter_context(house.serve_open())
            house.text("lock", "homelab")
        else:
            house.key.rename(tmp_path / "away.key")
        house.edit(more=SECOND_KEY)
        error = house.refuses("apply", "--yes")
        assert error["class"] == "Locked"
        assert "kluis unlock homelab" in error["next"]


def test_a_keyring_that_was_added_is_kept_open_by_the_running_service(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    house.apply()
    with house.serve_open():
        house.edit(
            more='\n[keyrings.office]\nstore = { kind = "directory", path = "office" }\n'
            'opens = "disk"\n[keyrings.office.keys.web]\nkind = "transit"\n'
            '[clients.web]\nkeys = ["office/web"]\n'
        )
        token = house.apply()["tokens"]["web"]
        answer = house.call("PUT", "office/encrypt/web", {"plaintext": PLAINTEXT}, token)
        assert answer.status == 200


def test_a_keyring_that_is_served_does_not_move_to_another_folder(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    house.apply()
    house.edit(more='\n[service]\ncontrol = "control.sock"\n')
    with house.serve_open():
        house.edit(('path = "state"', 'path = "elsewhere"'))
        error = house.refuses("apply", "--yes")
        assert error["class"] == "ServiceError"
        assert "the keyring homelab is to move from" in error["seen"]


def test_a_plan_is_shown_and_carried_out_when_a_person_says_yes(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    terminal = Terminal(house, "apply")
    terminal.expect("  - make the keyring homelab, opened by: disk or family")
    terminal.expect("do this? [y/N] ")
    terminal.type("y")
    terminal.expect("Token of bletchley, shown once: kluis_")
    assert terminal.end() == 0
    assert homelab(house) == ("open", 1, 1)


def test_nothing_is_done_when_a_person_does_not_say_yes(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    before = house.snapshot()
    terminal = Terminal(house, "apply")
    terminal.expect("do this? [y/N] ")
    terminal.type("")
    terminal.expect("error: nothing was changed")
    assert terminal.end() == 1
    assert house.snapshot() == before


def test_nobody_to_ask_is_an_error_that_names_yes(tmp_path: Path) -> None:
    assert "--yes" in House(tmp_path / "house").refuses("apply")["next"]


# -- passphrases

PASSPHRASES = ANCHORS + VAULT_ROOM + VAULT_ROOM.replace("vault-room", "attic") + KEYRING + FACADE
RULE = ("disk or family", "vault-room and attic")
FIRST, SECOND = "twelve brown horses", "one lost umbrella"


def test_passphrases_come_on_standard_input_in_the_order_of_the_anchors_names(
    tmp_path: Path,
) -> None:
    house = House(tmp_path / "house", PASSPHRASES)
    house.edit(RULE)
    house.apply(stdin=f"{FIRST}\n{SECOND}\n")  # attic, then vault-room
    with house.serve():
        attic = house.json("unlock", "homelab", "--passphrase", "attic", stdin=FIRST, code=2)
        assert attic["homelab"]["needs"] == [["vault-room"]]
        refused = house.kluis("unlock", "homelab", "--passphrase", "vault-room", stdin=FIRST)
        assert one_error(refused)[0] == "the passphrase does not open this leaf"
        opened = house.text("unlock", "homelab", "--passphrase", "vault-room", stdin=SECOND)
        assert opened == "homelab is open\n"


def test_a_new_passphrase_is_typed_twice_without_echo(tmp_path: Path) -> None:
    house = House(tmp_path / "house", PASSPHRASES)
    house.edit(("disk or family", "disk or attic"))
    terminal = Terminal(house, "apply", "--yes")
    terminal.expect("new passphrase for attic: ")
    terminal.type(FIRST)
    terminal.expect("the same again: ")
    terminal.type(FIRST)
    assert terminal.end() == 0
    assert FIRST not in terminal.shown
    with house.serve_open():
        house.text("lock", "homelab")
        house.text("unlock", "homelab", "--passphrase", "attic", stdin=FIRST)


def test_two_passphrases_that_differ_change_nothing(tmp_path: Path) -> None:
    house = House(tmp_path / "house", PASSPHRASES)
    house.edit(("disk or family", "disk or attic"))
    before = house.snapshot()
    terminal = Terminal(house, "apply", "--yes")
    terminal.expect("new passphrase for attic: ")
    terminal.type(FIRST)
    terminal.expect("the same again: ")
    terminal.type(SECOND)
    terminal.expect("error: the two passphrases for attic differ")
    assert terminal.end() == 1
    assert house.snapshot() == before


@pytest.mark.parametrize(
    ("stdin", "words"),
    [("", "no line for the passphrase of attic"), ("short\n", "a passphrase of 5 characters")],
)
def test_a_passphrase_that_is_missing_or_too_short_is_refused(
    stdin: str, words: str, tmp_path: Path
) -> None:
    house = House(tmp_path / "house", PASSPHRASES)
    house.edit(("disk or family", "disk or attic"))
    assert words in house.refuses("apply", "--yes", stdin=stdin)["seen"]


# -- crashes, and a full disk


@pytest.mark.parametrize("output", ["text", "json"])
def test_paper_that_was_issued_before_a_later_keyring_failed_is_shown(
    output: str, tmp_path: Path
) -> None:
    house = House(tmp_path / "house", ANCHORS + KEYRING)
    house.edit(
        more='[keyrings.office]\nstore = { kind = "directory", path = "office" }\nopens = "disk"\n'
    )
    (house.folder / "office" / "history").mkdir(parents=True)
    (house.folder / "office").chmod(0o700)
    (house.folder / "office" / "history").chmod(0o755)
    done = house.kluis("apply", "--yes", "--output", output)
    assert "history is open to others" in one_error(done)[0]
    if output == "json":
        assert done.json["failed"]["class"] == "Unsafe"
        shares = done.json["shares"]["family"]
    else:
        shares = [line[5:] for line in done.out.splitlines() if line[:5] in ("  1. ", "  2. ")]
    house.edit(more=FACADE)
    house.key.unlink()
    with house.serve():
        house.text("unlock", "homelab", stdin="\n".join(shares[:2]))


def test_a_kill_at_any_time_leaves_the_old_or_the_new_keyring_whole(tmp_path: Path) -> None:
    house = House(tmp_path / "house", ANCHORS + KEYRING)
    house.apply()
    began = time.monotonic()
    house.apply()
    took_s = time.monotonic() - began
    randomness = random.Random(20260)
    for number in range(8):
        house.edit(more=SECOND_KEY.replace("colossus", f"key-{number}"))
        process = subprocess.Popen(
            [*KLUIS, "apply", "--yes"],
            cwd=house.folder,
            env=house.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(took_s * randomness.uniform(0.5, 1.3))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert homelab(house)[0] == "open"
    assert len(house.apply()["keyrings"]["homelab"]["steps"]) <= 8
    assert len(house.json("key", "list")["keys"]) == 9


SCRIPT = """
set -e
mount -t tmpfs -o size=128k,mode=700 none state
"$@" apply --yes > first.txt
head -c 1000000 /dev/zero > state/filler 2>/dev/null || true
mkdir before; cp -a state/homelab.json state/homelab.seen before
cp second.toml kluis.toml
code=0; "$@" apply --yes > out.txt 2> err.txt || code=$?
echo $code > code.txt
cmp state/homelab.json before/homelab.json
cmp state/homelab.seen before/homelab.seen
"$@" status > status.txt
rm state/filler
"$@" apply --yes > last.txt
"""


def test_a_full_disk_is_an_error_and_the_old_state_untouched(tmp_path: Path) -> None:
    """On a small tmpfs; where nothing may be mounted, by a limit on the size of files."""
    house = House(tmp_path / "house", ANCHORS + KEYRING)
    (house.folder / "second.toml").write_text(ANCHORS + KEYRING + SECOND_KEY)
    house.state.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh", *KLUIS],
        cwd=house.folder,
        env=house.environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if (house.folder / "first.txt").exists():
        assert mounted.returncode == 0, mounted.stderr
        assert (house.folder / "code.txt").read_text() == "1\n"
        error = (house.folder / "err.txt").read_text()
        assert "No space left on device" in error
    else:
        error = with_small_files(house)
    assert error.count("error: ") == 1
    assert "the old document is untouched" in error


def with_small_files(house: House) -> str:
    house.apply()
    before = house.document().read_bytes()
    house.edit(more=SECOND_KEY)
    done = subprocess.run(
        [*KLUIS, "apply", "--yes"],
        cwd=house.folder,
        env=house.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8)),
    )
    assert done.returncode == 1
    assert house.document().read_bytes() == before
    return done.stderr
