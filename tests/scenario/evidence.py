"""What a soak's kluis left behind: no secret, no fault, a chain that holds."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping

import pkcs11

from tests.scenario.guarded import Guarded
from tests.support.moto import SECRET_ACCESS_KEY
from tests.support.places import Hsm, Place, Site
from tests.support.softhsm import PIN
from tests.test_secrets_leak import forms, keyring_secrets

TOKEN: str = "house"


def change_pin(hsm: Place) -> str:
    """Give the token a PIN that is found by chance nowhere; that PIN."""
    assert isinstance(hsm, Hsm)
    pin = secrets.token_hex(8)
    token = pkcs11.lib(str(hsm.hsm.tool)).get_token(token_label=TOKEN)
    with token.open(rw=True, user_pin=PIN) as session:
        session.set_pin(PIN, pin)
    (hsm.hsm.folder.parent / "hsm.pin").write_text(pin)
    return pin


def of_places(found: Mapping[str, Place]) -> dict[str, bytes]:
    """What the places know that kluis is told, or must not be."""
    known = {"the HSM's PIN": change_pin(found["hsm"]), "the AWS key": SECRET_ACCESS_KEY}
    for place in found.values():
        if isinstance(place, Site):
            known[f"{place.name}'s root token"] = place.root
            known[f"{place.name}'s unseal share"] = place.share
            token = place.bao.directory.parent / f"{place.name}.token"
            known[f"the token for {place.name}"] = token.read_text()
    return {name: value.encode() for name, value in known.items()}


def of_keyring(guarded: Guarded) -> dict[str, bytes]:
    """The paper, the client's token, and all that the keyring holds."""
    paper = {f"share {n}": share.encode() for n, share in enumerate(guarded.shares)}
    client = {"the client's token": guarded.token.encode()}
    return paper | client | keyring_secrets(guarded.house)


def check(guarded: Guarded, known: Mapping[str, bytes]) -> None:
    """Raises AssertionError when a log holds a secret, or tells of a fault."""
    written = {service.log_file.name: service.log_file.read_bytes() for service in guarded.services}
    written["the audit log"] = guarded.audit().read_bytes()
    found = list(leaks(written, known))
    assert not found, "\n".join(found)
    faults = [event for event in guarded.events() if event["event"] == "fault"]
    assert not faults, f"kluis met faults of its own: {faults}"
    foreign = [event for event in guarded.events() if "unexpected" in str(event.get("seen", ""))]
    assert not foreign, f"an anchor met what it does not know: {foreign}"
    assert "Traceback" not in guarded.logs(), "there is a traceback in a log of kluis"
    guarded.house.text("audit", "verify", os.fspath(guarded.audit()))


def leaks(written: Mapping[str, bytes], known: Mapping[str, bytes]) -> Iterator[str]:
    """Every secret that is in what was written, in any of its forms."""
    for place, data in written.items():
        for name, value in known.items():
            if form := next((form for form, needle in forms(value) if needle in data), ""):
                yield f"{name} ({form}) is in {place}"


def counted(guarded: Guarded) -> Counter[str]:
    """How often kluis told of each kind of event."""
    return Counter(str(event["event"]) for event in guarded.events())
