"""``kluis bootstrap`` with a real TPM in software: a key that is given once is never lost by it."""

from __future__ import annotations

import asyncio
import base64
import multiprocessing
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis import compose, configuration
from kluis.anchors.static import StaticAnchor
from kluis.engine import change
from kluis.engine.opening import Opening
from kluis.errors import (
    ChangeRefused,
    DocumentError,
    KluisError,
    NotFound,
    UsageError,
)
from kluis.keyring.document import from_bytes
from kluis.secret import Secret
from kluis.service.bootstrap import given_key, given_record, proof
from kluis.service.bootstrap import sealing as bootstrap
from kluis.store import directory, files
from tests.support.house import House
from tests.support.swtpm import Swtpm, shared_swtpm

KEY = bytes(range(32))
TPM = '[anchors.node-tpm]\nkind = "tpm2"\ndevice = "DEVICE"\n'
DISK = '[anchors.disk]\nkind = "static"\nfile = "anchor.key"\n'
FAMILY = '[anchors.family]\nkind = "people"\nthreshold = 2\nshares = 3\n'
KEYRING = """
[keyrings.node]
store = { kind = "directory", path = "state" }
opens = "RULE"

[keyrings.node.keys.unseal]
kind = "static-seal"
"""


@pytest.fixture(scope="module")
def tpm() -> Iterator[Swtpm]:
    with shared_swtpm() as running:
        yield running


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder on a tmpfs."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def site(folder: Path, tpm: Swtpm | None = None, rule: str = "", more: str = "") -> House:
    """A house whose machine anchor is the TPM, or a disk without one; and the Secret."""
    machine = DISK if tpm is None else TPM.replace("DEVICE", tpm.device)
    opens = rule or f"{'disk' if tpm is None else 'node-tpm'} or family"
    house = House(folder / "house", machine + FAMILY + KEYRING.replace("RULE", opens) + more)
    house.state.mkdir(mode=0o700)
    (house.folder / "secret").write_bytes(KEY.hex().encode() + b"\n")
    return house


def run(house: House, secret: bytes | None = KEY, **asked: Any) -> dict[str, Any]:
    """What a bootstrap does, here: a new house each time, as a new process has it."""
    file = configuration.read(house.file)
    built = compose.house(file, alone=True, accept_rollback=False)
    given_now = None if secret is None else Secret(secret)
    try:
        asked_for = bootstrap.Asked("node", asked.pop("key", "unseal"), given_now, **asked)
        return dict(asyncio.run(bootstrap.bootstrap(built, asked_for)))
    finally:
        built.close()


def refused(house: House, kind: type[KluisError], secret: bytes | None = KEY, **asked: Any) -> str:
    """What was seen by a run that is refused and changes nothing."""
    before = house.snapshot()
    with pytest.raises(kind) as error:
        run(house, secret, **asked)
    assert house.snapshot() == before
    assert all((error.value.seen, error.value.means, error.value.next_step))
    return error.value.seen


def material(house: House) -> bytes:
    """What the keyring that rests there holds, opened by its anchors alone."""
    found = configuration.read(house.file)
    anchors = compose.blueprint(found.path).anchors
    opened = asyncio.run(Opening(from_bytes(house.document("node").read_bytes())).ask(anchors))
    assert opened is not None
    return opened.contents.keys["unseal"].versions[1].material


# -- the key that is given


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        b"\n" * 31 + b"\n",  # 32 raw bytes, all of them ends of line
        KEY + b"\n",
        KEY.hex().encode(),
        KEY.hex().upper().encode() + b"\r\n",
        base64.b64encode(KEY) + b"\n",
        base64.urlsafe_b64encode(KEY).rstrip(b"="),
    ],
)
def test_a_key_is_read_as_the_static_seal_reads_it(form: bytes) -> None:
    expected = form if form == b"\n" * 32 else KEY
    assert given_key.decode(form, "it") == Secret(expected)


@pytest.mark.parametrize(
    "form", [b"", KEY[:31], KEY + b"\n\n", b"g" * 64, b"=" * 44, b"!" * 43, b"A" * 44]
)
def test_what_is_no_key_is_refused_and_not_shown(form: bytes) -> None:
    with pytest.raises(UsageError) as error:
        given_key.decode(form, "it")
    assert (
        error.value.seen
        == f"it does not hold a seal key: {len(form)} bytes, or not in one of its forms"
    )


@given(st.binary(max_size=100))
def test_any_bytes_are_a_key_or_one_error(data: bytes) -> None:
    try:
        assert len(given_key.decode(data, "it").reveal()) == 32
    except UsageError:
        assert len(data) != 32


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_one_error(data: bytes) -> None:
    with pytest.raises(DocumentError):
        given_key.from_bytes(data)


def test_a_record_knows_a_key_again_and_no_other() -> None:
    checks = given_key.from_bytes(given_key.to_bytes({"a": given_key.Check.of(Secret(KEY))}))
    assert checks["a"].fits(Secret(KEY))
    assert not checks["a"].fits(Secret(KEY[::-1]))


# -- the runs of an init container


def test_the_first_run_seals_and_proves_and_later_ones_change_nothing(
    tpm: Swtpm, tmp_path: Path, memory: Path
) -> None:
    house = site(tmp_path, tpm)
    asked = ["--key", "node/unseal", "--from", "secret", "--paper-to", str(memory / "paper")]
    made = house.json("bootstrap", *asked)
    assert (made["done"], made["proven_by"], made["compared"]) == ("made", ["node-tpm"], True)
    assert made["secret_may_be_deleted"] is True
    assert material(house) == KEY
    before = house.snapshot()
    tpm.reboot()
    later = run(house)
    assert (later["done"], later["secret_may_be_deleted"]) == ("nothing", True)
    assert house.snapshot() == before
    refused(house, ChangeRefused, KEY[::-1])
    (house.folder / "secret").unlink()
    said = house.text("bootstrap", *asked)
    assert "proven: opened afresh by node-tpm alone" in said
    assert "no Secret is needed" in said
    (house.state / "node.bootstrap").unlink()
    assert "no key was compared" in house.text("bootstrap", *asked)
    assert house.kluis("status").code == 0


def test_a_tpm_that_was_cleared_strands_nothing(tpm: Swtpm, tmp_path: Path, memory: Path) -> None:
    house, paper = site(tmp_path, tpm), memory / "paper"
    run(house, paper=paper)
    old = house.document("node").read_bytes()
    shares = re.findall(r"^  \d\. (.+)$", paper.read_text(), re.MULTILINE)
    tpm.clear()
    before = house.snapshot()
    locked = run(house)
    assert (locked["open"], locked["secret_may_be_deleted"]) == (False, False)
    assert locked["anchors"]["node-tpm"]["state"] == "changed"
    assert house.text("bootstrap", "--key", "node/unseal", code=2)
    assert house.text("bootstrap", "--key", "node/unseal", "--accept-locked")
    assert house.snapshot() == before
    refused(house, ChangeRefused, KEY[::-1])
    refused(house, ChangeRefused, KEY[::-1], reseal=True, paper=paper)
    refused(house, NotFound, None, reseal=True, paper=paper)
    tpm.stop()
    refused(house, ChangeRefused, reseal=True, paper=paper)
    tpm.start()

    made = run(house, reseal=True, paper=paper)
    assert (made["done"], made["proven_by"]) == ("resealed", ["node-tpm"])
    assert material(house) == KEY
    kept = Path(made["kept"])
    assert kept.read_bytes() == old
    opening = Opening(from_bytes(kept.read_bytes()))
    for share in shares[:2]:
        _, opened = opening.enter_share(share)
    assert opened is not None
    assert opened.contents.keys["unseal"].versions[1].material == KEY
    assert run(house, None)["done"] == "nothing"


@pytest.mark.parametrize("more", ["rotated", "another key", "no record"])
def test_a_keyring_that_holds_more_than_the_secret_is_not_made_anew(
    more: str, tmp_path: Path, memory: Path
) -> None:
    other = '[keyrings.node.keys.garden]\nkind = "transit"\n' if more == "another key" else ""
    house, paper = site(tmp_path, more=other), memory / "paper"
    run(house, paper=paper)
    if more == "rotated":
        assert "other nodes" in house.refuses("key", "rotate", "node/unseal")["means"]
        house.text("key", "rotate", "node/unseal", "--alone")
        assert run(house)["latest"] == 2
    if more == "no record":
        (house.state / "node.bootstrap").unlink()
    house.make_key("anchor.key")
    refused(house, ChangeRefused, reseal=True, paper=paper)


def test_a_document_that_was_changed_is_not_made_anew(tmp_path: Path, memory: Path) -> None:
    house, paper = site(tmp_path), memory / "paper"
    run(house, paper=paper)
    text = house.document("node").read_text()
    house.document("node").write_text(text.replace('"ciphertext":"', '"ciphertext":"AAAA'))
    (house.state / "node.seen").unlink()
    assert "does not verify" in refused(house, ChangeRefused, reseal=True, paper=paper)


def test_without_its_anchor_or_its_key_the_first_run_writes_no_keyring(
    tpm: Swtpm, tmp_path: Path, memory: Path
) -> None:
    house, paper = site(tmp_path, tpm), memory / "paper"
    with pytest.raises(NotFound):
        run(house, None, paper=paper)
    tpm.stop()
    with pytest.raises(ChangeRefused, match="node-tpm"):
        run(house, paper=paper)
    assert not house.document("node").exists()
    assert not paper.exists()
    tpm.start()
    assert run(house, paper=paper)["done"] == "made"


def test_the_secret_stays_while_one_loss_would_be_the_end(tmp_path: Path) -> None:
    house = site(tmp_path, rule="disk")
    house.state.rmdir()
    house.folder.chmod(0o2770)  # as a kubelet hands out a volume with fsGroup
    made = run(house)
    assert made["single_losses"] == ["disk"]
    assert made["secret_may_be_deleted"] is False
    assert "keep the Secret" in house.text("bootstrap", "--key", "node/unseal")


TWO_DISKS = '[anchors.disk2]\nkind = "static"\nfile = "anchor2.key"\n'


@pytest.mark.parametrize("disk2", ["well", "another key", "gone", "no more named"])
def test_an_anchor_that_opens_nothing_now_spares_no_other(disk2: str, tmp_path: Path) -> None:
    house = site(tmp_path, rule="disk or disk2", more=TWO_DISKS)
    house.make_key("anchor2.key")
    assert run(house)["single_losses"] == []
    if disk2 == "another key":
        house.make_key("anchor2.key")
    if disk2 == "gone":
        (house.folder / "anchor2.key").unlink()
    if disk2 == "no more named":
        house.edit((TWO_DISKS, ""), ("disk or disk2", "disk"))
    later = run(house)
    lost = [] if disk2 == "well" else ["disk2"]
    assert (later["unanswered"], later["single_losses"]) == (lost, ["disk"] if lost else [])
    assert later["secret_may_be_deleted"] is not bool(lost)
    if lost:
        said = house.text("bootstrap", "--key", "node/unseal")
        assert "keep the Secret" in said
        assert "disk2 opened nothing now" in said


def test_an_anchor_that_hangs_is_not_waited_for_and_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging(StaticAnchor):
        async def open(self, sealed: object, context: object) -> Secret:
            del sealed, context
            await asyncio.Event().wait()
            raise AssertionError

    house = site(tmp_path, rule="disk or disk2", more=TWO_DISKS)
    house.make_key("anchor2.key")
    run(house)
    monkeypatch.setattr(proof, "ASK_S", 0.05)
    anchors = compose.blueprint(house.file).anchors
    hanging: Any = Hanging.__new__(Hanging)
    document = from_bytes(house.document("node").read_bytes())
    both = {"disk": anchors["disk"], "disk2": hanging}
    found = asyncio.run(proof.prove(document, both, "unseal", Secret(KEY)))
    assert (found.proven_by, found.unanswered, found.alone) == (("disk",), ("disk2",), ("disk",))


def test_what_is_shown_once_is_in_no_log_and_on_no_disk(tmp_path: Path, memory: Path) -> None:
    client = '[keyrings.node.keys.bletchley]\nkind = "transit"\n'
    client += '[clients.bletchley]\nkeys = ["node/bletchley"]\n'
    house = site(tmp_path, more=client)
    assert "paper of family" in refused(house, UsageError)
    asked = ["bootstrap", "--key", "node/unseal", "--from", "secret"]
    assert "tmpfs" in house.refuses(*asked, "--paper-to", str(tmp_path / "paper"))["seen"]
    paper = memory / "paper"
    paper.write_text("of an earlier keyring")
    done = house.kluis(*asked, "--paper-to", str(paper))
    assert done.code == 0, done
    assert paper.stat().st_mode & 0o777 == 0o600
    assert (memory / "paper.1").read_text() == "of an earlier keyring"
    shares = re.findall(r"^  \d\. (.+)$", paper.read_text(), re.MULTILINE)
    token = re.findall(r"^Token of bletchley: (kluis_\S+)$", paper.read_text(), re.MULTILINE)
    assert (len(shares), len(token)) == (3, 1)
    where = (
        done.out
        + done.err
        + "".join(path.read_text("latin-1") for path in house.state.rglob("*") if path.is_file())
    )
    for secret in (*shares, *token, KEY.hex(), base64.b64encode(KEY).decode()):
        assert secret not in where


def test_nothing_that_must_be_typed_is_asked_for(tmp_path: Path) -> None:
    house = site(tmp_path, rule="disk or room", more='[anchors.room]\nkind = "passphrase"\n')
    assert "room" in refused(house, UsageError)


@pytest.mark.parametrize("key", ["colossus", "", "garden"])
def test_only_a_declared_static_key_is_taken(key: str, tmp_path: Path) -> None:
    house = site(tmp_path, more='[keyrings.node.keys.garden]\nkind = "transit"\n')
    with pytest.raises(UsageError):
        run(house, key=key)


def test_a_keyring_of_apply_is_compared_or_gets_the_key_it_lacks(tmp_path: Path) -> None:
    house = site(tmp_path)
    house.apply()
    refused(house, ChangeRefused)
    house.edit(more='[keyrings.node.keys.second]\nkind = "static-seal"\n')
    assert run(house, key="second")["done"] == "imported"
    assert run(house, key="second")["done"] == "nothing"
    assert run(house, None, key="second")["secret_may_be_deleted"] is True
    unseen = run(house, None)  # its key was made here: a Secret that is not mounted is another
    assert (unseen["open"], unseen["compared"]) == (True, False)
    assert (unseen["single_losses"], unseen["secret_may_be_deleted"]) == ([], False)
    record = house.state / "node.bootstrap"
    record.chmod(0o666)
    assert run(house, None, key="second")["secret_may_be_deleted"] is False
    record.unlink()
    given_record.GivenRecord(house.state, "node").remember("unseal", Secret(KEY))
    assert run(house, None)["secret_may_be_deleted"] is False
    assert '"event":"key-import"' in (house.state / "audit.jsonl").read_text()


# -- killed anywhere

TRACED = frozenset(
    {bootstrap.__file__, given_record.__file__, directory.__file__, files.__file__, change.__file__}
)
STEP = 23  # lines between two deaths: a prime, so that no loop is met at the same place


class Killer:
    """Kills this process when it has run its n-th line of what writes."""

    def __init__(self, line: int) -> None:
        self.left = line

    def __call__(self, frame: FrameType, event: str, arg: object) -> Killer | None:
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line":
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
        return self


def run_and_die(house: House, paper: Path, line: int) -> None:
    """Bootstrap, and be killed before the n-th line."""
    sys.settrace(Killer(line))
    run(house, paper=paper, reseal=True)
    sys.settrace(None)


@pytest.mark.parametrize("second", [False, True], ids=["made", "made anew"])
def test_killed_anywhere_a_later_run_ends_well(second: bool, tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        survived, line = False, 0
        while not survived:
            place = Path(folder, str(line))
            house, paper = site(place), place / "paper"
            if second:
                run(house, paper=paper)
                house.make_key("anchor.key")
            child = context.Process(target=run_and_die, args=(house, paper, line))
            child.start()
            child.join(60)
            survived, line = child.exitcode == 0, line + STEP
            assert survived or child.exitcode == -signal.SIGKILL
            assert run(house, paper=paper, reseal=True)["secret_may_be_deleted"], line
            assert material(house) == KEY, line
            if second:
                assert len(list((house.state / "kept").iterdir())) == 1, line
    assert line > 5 * STEP
