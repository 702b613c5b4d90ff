"""The tang anchor against real tangd, and against what stands between and lies."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path

import pytest
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK

from kluis.anchors.tang.anchor import TangAnchor
from kluis.anchors.tang.keys import (
    from_base64url,
    to_base64url,
)
from kluis.anchors.tang.protocol import Leaf, Recovery, read_leaf
from kluis.errors import (
    AnchorError,
    Changed,
    Damaged,
    Misconfigured,
    Missing,
    Refused,
    TagMismatch,
    Unreachable,
)
from kluis.keyring import crypto
from kluis.keyring.strict import JSON, to_base64
from kluis.secret import Secret
from tests.support.bao import free_port
from tests.support.tang import Between, Reply, Request, Tang, TangFailed, run

CONTEXT = b"kluis/1|00000000-0000-4000-8000-000000000000|1|/|tang"
BUFFER_BYTES = 4096  # tangd's, for a whole request

Sealed = Mapping[str, JSON]
Call = Coroutine[None, None, object]


@pytest.fixture
def tang(tmp_path: Path) -> Iterator[Tang]:
    with Tang(tmp_path / "tang") as running:
        yield running


@pytest.fixture
def between(tang: Tang) -> Iterator[Between]:
    with Between(tang.url) as running:
        yield running


def pinned(tang: Tang, url: str = "", deadline_s: float = 10.0) -> TangAnchor:
    return TangAnchor(
        "nas", url=url or tang.url, thumbprint=tang.thumbprint(), deadline_s=deadline_s
    )


def sealed_by(anchor: TangAnchor, secret: Secret | None = None) -> Sealed:
    return asyncio.run(anchor.seal(secret or Secret.random(), CONTEXT))


def open_(anchor: TangAnchor, sealed: Sealed) -> Secret:
    return asyncio.run(anchor.open(sealed, CONTEXT))


def outdated(anchor: TangAnchor, sealed: Sealed) -> str:
    return asyncio.run(anchor.outdated(sealed))


def error_of(call: Call) -> AnchorError:
    with pytest.raises(AnchorError) as caught:
        asyncio.run(call)
    error = caught.value
    assert all((error.seen, error.means, error.next_step))
    assert "\n" not in error.seen + error.means + error.next_step
    return error


def jwe_in(sealed: Sealed) -> str:
    return base64.b64decode(str(sealed["jwe"])).decode("ascii")


def leaf_in(sealed: Sealed) -> Leaf:
    return read_leaf(jwe_in(sealed).encode())


def private_key(path: Path) -> JWK:
    """A key of the server, for a use that its file does not name."""
    members = json.loads(path.read_text())
    return JWK(**{name: members[name] for name in ("kty", "crv", "x", "y", "d")})


# The protocol


@pytest.mark.parametrize(
    ("curve", "signs"), [("P-256", "ES256"), ("P-384", "ES384"), ("P-521", "ES512")]
)
def test_opens_with_keys_of_every_curve_that_tang_takes(tang: Tang, curve: str, signs: str) -> None:
    tang.fresh(curve=curve, signs=signs)
    anchor = TangAnchor("nas", url=tang.url, thumbprint=tang.thumbprint(signs))
    secret = Secret.random()
    sealed = sealed_by(anchor, secret)
    assert leaf_in(sealed).ephemeral.curve == curve
    assert open_(anchor, sealed) == secret
    assert outdated(anchor, sealed) == ""
    assert anchor.notice is None


def test_the_ephemeral_point_is_never_sent_and_no_point_twice(tang: Tang, between: Between) -> None:
    anchor = pinned(tang, between.url)
    sealed = sealed_by(anchor)
    between.asked.clear()
    for _ in range(8):
        open_(anchor, sealed)
    assert {request.method for request in between.asked} == {"POST"}
    points = [json.loads(request.body)["x"] for request in between.asked]
    assert len(set(points)) == 8
    ephemeral = leaf_in(sealed).ephemeral
    for request in between.asked:
        assert to_base64url(ephemeral.x).encode() not in request.body
        assert to_base64url(ephemeral.y).encode() not in request.body
        assert len(request.body) + len(request.path) < BUFFER_BYTES - 512  # and the headers


def test_whoever_sees_leaf_question_and_answer_can_not_open(tang: Tang, between: Between) -> None:
    anchor = pinned(tang, between.url)
    sealed = sealed_by(anchor)
    answers: list[bytes] = []

    def listening(request: Request) -> Reply:
        reply = between.passed_on(request)
        answers.append(reply.body)
        return reply

    between.now = listening
    open_(anchor, sealed)
    leaf, question = leaf_in(sealed), json.loads(between.asked[-1].body)
    (answer,) = (json.loads(body) for body in answers)
    for x in (answer["x"], question["x"], to_base64url(leaf.ephemeral.x)):
        key = crypto.concat_kdf(from_base64url(x), "A256GCM", leaf.context_sha256)
        with pytest.raises(TagMismatch):
            crypto.Aead(key).open(leaf.box, leaf.protected)
    with pytest.raises(Damaged):  # nor does the answer to one question answer another
        Recovery(leaf).secret(answers[0])


def test_what_kluis_seals_is_a_jwe_that_others_open_with_the_servers_key(
    tang: Tang, tmp_path: Path
) -> None:
    secret = Secret.random()
    sealed = sealed_by(pinned(tang), secret)
    key = private_key(tang.keys("ECMR")[0])
    token = JWE()
    token.deserialize(jwe_in(sealed), key)
    assert token.payload == secret.reveal()
    (tmp_path / "leaf").write_text(jwe_in(sealed))
    (tmp_path / "key").write_text(key.export())
    run(
        "jose", "jwe", "dec", "-i", tmp_path / "leaf", "-k", tmp_path / "key", "-O", tmp_path / "it"
    )
    assert (tmp_path / "it").read_bytes() == secret.reveal()


def test_a_jwe_that_another_implementation_made_opens(tang: Tang, tmp_path: Path) -> None:
    secret, digest = Secret.random(), to_base64url(crypto.sha256(CONTEXT))
    protected = {"alg": "ECDH-ES", "enc": "A256GCM", "kid": tang.thumbprint("ECMR"), "apu": digest}
    (tmp_path / "template").write_text(json.dumps({"protected": protected}))
    (tmp_path / "key").write_text(private_key(tang.keys("ECMR")[0]).export_public())
    (tmp_path / "secret").write_bytes(secret.reveal())
    made = run(
        *("jose", "jwe", "enc", "-i", tmp_path / "template", "-k", tmp_path / "key"),
        *("-I", tmp_path / "secret", "-c"),
    )
    assert open_(pinned(tang), {"jwe": to_base64(made.encode())}) == secret


def test_a_leaf_whose_point_is_not_on_the_curve_asks_nobody(tang: Tang, between: Between) -> None:
    anchor = pinned(tang, between.url)
    protected, *rest = jwe_in(sealed_by(anchor)).split(".")
    header = json.loads(from_base64url(protected))
    between.asked.clear()
    for x, y in (
        (header["epk"]["y"], header["epk"]["x"]),
        (to_base64url(bytes(66)), to_base64url(bytes(66))),
        (to_base64url(b"\xff" * 66), header["epk"]["y"]),
    ):
        wrong = {**header, "epk": {**header["epk"], "x": x, "y": y}}
        token = ".".join([to_base64url(json.dumps(wrong).encode()), *rest])
        error = error_of(anchor.open({"jwe": to_base64(token.encode())}, CONTEXT))
        assert isinstance(error, Damaged)
    assert between.asked == []


def test_every_part_of_the_header_is_bound_by_the_tag(tang: Tang) -> None:
    anchor = pinned(tang)
    first, second = sealed_by(anchor), sealed_by(anchor)
    protected, *rest = jwe_in(first).split(".")
    header = json.loads(from_base64url(protected))
    other = json.loads(from_base64url(jwe_in(second).split(".")[0]))
    spaced = json.dumps(header, indent=1)
    for changed in (json.dumps({**header, "epk": other["epk"]}), spaced):
        token = ".".join([to_base64url(changed.encode()), *rest])
        assert isinstance(
            error_of(anchor.open({"jwe": to_base64(token.encode())}, CONTEXT)), Damaged
        )


def test_a_leaf_of_another_place_asks_nobody(tang: Tang, between: Between) -> None:
    anchor = pinned(tang, between.url)
    sealed = sealed_by(anchor)
    between.asked.clear()
    error = error_of(anchor.open(sealed, CONTEXT + b"2"))
    assert isinstance(error, Damaged)
    assert "another place" in error.seen
    assert between.asked == []


# Who vouches for it


def test_without_a_thumbprint_nothing_is_sealed_but_what_was_sealed_opens(tang: Tang) -> None:
    secret = Secret.random()
    sealed = sealed_by(pinned(tang), secret)
    anchor = TangAnchor("nas", url=tang.url, thumbprint=None, deadline_s=10.0)
    error = error_of(anchor.seal(secret, CONTEXT))
    assert isinstance(error, Misconfigured)
    assert "kluis anchor show nas" in error.next_step
    assert open_(anchor, sealed) == secret
    assert outdated(anchor, sealed) == ""
    asyncio.run(anchor.probe())
    assert anchor.notice is not None
    assert "no thumbprint" in anchor.notice.seen


def test_show_prints_what_tang_show_keys_prints_on_the_server(tang: Tang) -> None:
    if shutil.which("curl") is None or shutil.which("tang-show-keys") is None:
        raise TangFailed("tang-show-keys or curl is missing; install them: apt install tang curl")
    tang.generate()  # two of each
    shown = asyncio.run(TangAnchor("nas", url=tang.url).show())
    keys = shown["signing_keys"]
    assert isinstance(keys, list)
    assert sorted(map(str, keys)) == sorted(run("tang-show-keys", str(tang.port)).split())
    exchange = shown["exchange_keys"]
    assert isinstance(exchange, list)
    assert len(exchange) == len(keys) == 2
    assert shown["thumbprint"] is None
    assert shown["pinned"] == "not set"


def test_every_one_of_several_signing_keys_vouches(tang: Tang) -> None:
    first = pinned(tang)
    tang.generate()
    for key in run("tang-show-keys", str(tang.port)).split():
        anchor = TangAnchor("nas", url=tang.url, thumbprint=key)
        open_(anchor, sealed_by(anchor))
    asyncio.run(first.probe())
    assert first.notice is None


def test_a_thumbprint_of_an_exchange_key_vouches_for_nothing(tang: Tang) -> None:
    anchor = TangAnchor("nas", url=tang.url, thumbprint=tang.thumbprint("ECMR"))
    assert isinstance(error_of(anchor.seal(Secret.random(), CONTEXT)), Refused)


def test_a_server_that_knows_no_advertisement_by_thumbprint_vouches_by_the_plain_one(
    tang: Tang, between: Between
) -> None:
    def plain(request: Request) -> Reply:
        return Reply(404) if request.path.startswith("/adv/") else between.passed_on(request)

    between.now = plain
    anchor = pinned(tang, between.url)
    open_(anchor, sealed_by(anchor))
    assert anchor.notice is None


def test_somebody_between_with_keys_of_his_own_gets_nothing(
    tang: Tang, between: Between, tmp_path: Path
) -> None:
    anchor = pinned(tang, between.url)
    sealed = sealed_by(anchor)
    with Tang(tmp_path / "his") as his, Between(his.url) as to_him:
        between.now = to_him.passed_on  # plainly another server
        for call in (anchor.seal(Secret.random(), CONTEXT), anchor.probe()):
            assert isinstance(error_of(call), Refused)
        assert isinstance(error_of(anchor.open(sealed, CONTEXT)), Refused)

        his_own = to_him.passed_on(Request("GET", "/adv", b""))
        between.now = lambda request: his_own  # that says yes to every thumbprint
        error = error_of(anchor.seal(Secret.random(), CONTEXT))
        assert isinstance(error, Refused)
        assert "does not vouch" in error.seen
        assert "tang-show-keys" in error.next_step


def _general(advertisement: bytes, pinned_by: bytes) -> bytes:
    """One's payload and signatures, and the signatures of the other beside them."""
    one, other = json.loads(advertisement), json.loads(pinned_by)
    signatures = [
        {name: each[name] for name in ("protected", "signature")} for each in (one, other)
    ]
    return json.dumps({"payload": one["payload"], "signatures": signatures}).encode()


def test_a_signature_of_the_pinned_key_under_something_else_vouches_for_nothing(
    tang: Tang, between: Between, tmp_path: Path
) -> None:
    anchor = pinned(tang, between.url)
    good = between.passed_on(Request("GET", "/adv", b"")).body
    with Tang(tmp_path / "his") as his, Between(his.url) as to_him:
        bad = to_him.passed_on(Request("GET", "/adv", b"")).body
        between.now = lambda request: Reply(200, _general(bad, good))
        error = error_of(anchor.seal(Secret.random(), CONTEXT))
    assert isinstance(error, Refused)
    assert "does not vouch" in error.seen


def test_a_key_that_is_advertised_and_did_not_sign_is_refused(tang: Tang, between: Between) -> None:
    anchor = pinned(tang, between.url)
    tang.generate()

    def one_signature_less(request: Request) -> Reply:
        token = json.loads(between.passed_on(request).body)
        return Reply(200, json.dumps({**token, "signatures": token["signatures"][:1]}).encode())

    between.now = one_signature_less
    error = error_of(anchor.seal(Secret.random(), CONTEXT))
    assert isinstance(error, Refused)
    assert "is not signed by the key" in error.seen


# Keys that change


def test_a_rotated_exchange_key_opens_and_is_outdated(tang: Tang) -> None:
    anchor, secret = pinned(tang), Secret.random()
    sealed = sealed_by(anchor, secret)
    tang.rotate_exchange_key()
    assert open_(anchor, sealed) == secret
    assert "exchange key was rotated" in outdated(anchor, sealed)
    assert anchor.notice is None
    assert outdated(anchor, sealed_by(anchor, secret)) == ""


def test_a_pinned_key_that_was_rotated_out_still_vouches_and_says_what_to_pin(tang: Tang) -> None:
    anchor, secret = pinned(tang), Secret.random()
    sealed = sealed_by(anchor, secret)
    tang.rotate()
    assert "exchange key was rotated" in outdated(anchor, sealed)
    assert anchor.notice is not None
    assert tang.thumbprint() in anchor.notice.next_step
    fresh = sealed_by(anchor, secret)
    assert leaf_in(fresh).kid == tang.thumbprint("ECMR")
    assert open_(anchor, fresh) == open_(anchor, sealed) == secret
    assert asyncio.run(anchor.show())["pinned"] == "rotated"
    tang.rotate()  # and once more
    asyncio.run(anchor.probe())
    now = pinned(tang)
    asyncio.run(now.probe())
    assert now.notice is None
    assert asyncio.run(now.show())["pinned"] == "advertised"


def test_a_pinned_key_whose_file_is_gone_vouches_no_more(tang: Tang) -> None:
    anchor = pinned(tang)
    sealed = sealed_by(anchor)
    tang.rotate()
    tang.delete_rotated()
    for call in (anchor.seal(Secret.random(), CONTEXT), anchor.probe()):
        error = error_of(call)
        assert type(error) is Refused
        assert "kluis anchor show nas" in error.next_step
    assert type(error_of(anchor.open(sealed, CONTEXT))) is Refused  # sealing anew can't heal it
    assert asyncio.run(anchor.show())["pinned"] == "gone"


def test_a_deleted_exchange_key_is_changed_and_sealing_anew_heals(tang: Tang) -> None:
    anchor, secret = pinned(tang), Secret.random()
    sealed = sealed_by(anchor, secret)
    tang.rotate_exchange_key()
    tang.delete_rotated()
    error = error_of(anchor.open(sealed, CONTEXT))
    assert isinstance(error, Changed)
    assert "no longer has the key" in error.seen
    assert open_(anchor, sealed_by(anchor, secret)) == secret


def test_a_server_without_exchange_keys_is_missing_its_key(tang: Tang) -> None:
    anchor = pinned(tang)
    sealed = sealed_by(anchor)
    tang.delete_exchange_keys()
    for call in (anchor.probe(), anchor.seal(Secret.random(), CONTEXT)):
        assert isinstance(error_of(call), Missing)
    assert isinstance(error_of(anchor.open(sealed, CONTEXT)), Missing)
    assert outdated(anchor, sealed) == ""  # there is nothing to seal to


def test_a_server_whose_keys_were_all_deleted_makes_others_that_nobody_vouches_for(
    tang: Tang,
) -> None:
    anchor = pinned(tang)
    sealed = sealed_by(anchor)
    tang.delete_all()
    assert type(error_of(anchor.probe())) is Refused
    assert type(error_of(anchor.open(sealed, CONTEXT))) is Refused


def test_a_server_with_a_broken_key_file_is_still_known_for_a_tang_server(tang: Tang) -> None:
    anchor = pinned(tang)
    (tang.folder / "broken.jwk").write_text('{"kty":"EC"}')
    assert isinstance(error_of(anchor.probe()), Missing)


# The table of faults

Fault = Callable[[Between], Callable[[Request], Reply]]


def _answers(status: int, body: bytes = b"", location: str = "") -> Fault:
    return lambda between: lambda request: Reply(status, body, location)


def _bit_flipped(between: Between) -> Callable[[Request], Reply]:
    """One character of what proves the answer is another: of each signature, or of the point."""

    def flip(request: Request) -> Reply:
        token = json.loads(between.passed_on(request).body)
        for proof in token.get("signatures", [token]):
            name = "signature" if "signature" in proof else "y"
            other = "A" if proof[name][5] != "A" else "B"
            proof[name] = f"{proof[name][:5]}{other}{proof[name][6:]}"
        return Reply(200, json.dumps(token).encode())

    return flip


def _forever(between: Between) -> Callable[[Request], Reply]:
    def drip() -> Iterator[bytes]:
        while True:
            threading.Event().wait(0.02)
            yield b" "

    return lambda request: Reply(200, chunks=drip())


PAGE = b"<html><body>Welcome to nginx!</body></html>"
FAULTS: Mapping[str, tuple[Fault, type[AnchorError], type[AnchorError], str]] = {
    # name: what happens, what probe says, what open says, words of both
    "slow": (_forever, Unreachable, Unreachable, "no answer within"),
    "refuse": (_answers(403), Refused, Refused, "forbids it with status 403"),
    "login": (_answers(401), Refused, Refused, "forbids it with status 401"),
    "too many": (_answers(429), Unreachable, Unreachable, "answers with status 429"),
    "trouble": (_answers(500), Unreachable, Unreachable, "answers with status 500"),
    "no server behind the proxy": (_answers(502), Unreachable, Unreachable, "with status 502"),
    "gone": (_answers(404, PAGE), Misconfigured, Misconfigured, "knows no /adv"),
    "redirect": (_answers(302, b"", "https://x.invalid"), Misconfigured, Misconfigured, "302"),
    "page": (_answers(200, PAGE), Misconfigured, Misconfigured, "is not a"),
    "nothing": (_answers(200), Misconfigured, Misconfigured, "is not a"),
    "too long": (_answers(200, b"9" * 100_000), Misconfigured, Misconfigured, ""),
    "far too long": (_answers(200, b" " * 2_000_000), Misconfigured, Misconfigured, "more than"),
    "damaged": (_bit_flipped, Refused, Refused, "not"),
    "bad request": (_answers(400), Misconfigured, Damaged, ""),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_every_fault_is_told_by_its_class_and_words(
    tang: Tang, between: Between, fault: str
) -> None:
    happens, on_probe, on_open, words = FAULTS[fault]
    anchor, secret = pinned(tang, between.url), Secret.random()
    sealed = sealed_by(anchor, secret)
    if fault == "slow":
        anchor.deadline_s = 0.3
    between.now = happens(between)
    calls: tuple[tuple[Callable[[], Call], type[AnchorError]], ...] = (
        (anchor.probe, on_probe),
        (lambda: anchor.seal(secret, CONTEXT), on_probe),
        (lambda: anchor.open(sealed, CONTEXT), on_open),
    )
    for call, expected in calls:
        error = error_of(call())
        assert type(error) is expected
        assert words in error.seen
    between.now = between.passed_on  # flapping: it is good again at once
    anchor.deadline_s = 10.0
    assert open_(anchor, sealed) == secret


def test_a_server_that_says_when_to_come_again_is_believed(tang: Tang, between: Between) -> None:
    between.now = lambda request: Reply(503, retry_after="7")
    error = error_of(pinned(tang, between.url).probe())
    assert isinstance(error, Unreachable)
    assert error.retry_s == 7.0


def test_down_and_back(tang: Tang) -> None:
    anchor, secret = pinned(tang), Secret.random()
    sealed = sealed_by(anchor, secret)
    for _ in range(2):
        tang.stop()
        for call in (anchor.probe(), anchor.knock(), anchor.show()):
            error = error_of(call)
            assert isinstance(error, Unreachable)
            assert "can't be reached" in error.seen
        assert isinstance(error_of(anchor.open(sealed, CONTEXT)), Unreachable)
        tang.start()
        assert open_(anchor, sealed) == secret


def test_a_server_that_hangs_is_unreachable_by_the_deadline(tang: Tang) -> None:
    anchor, secret = pinned(tang), Secret.random()
    sealed = sealed_by(anchor, secret)
    tang.freeze()
    anchor.deadline_s = 0.2
    for call in (anchor.probe(), anchor.show()):
        assert "no answer within 0.2 s" in error_of(call).seen
    assert isinstance(error_of(anchor.open(sealed, CONTEXT)), Unreachable)
    tang.thaw()
    anchor.deadline_s = 10.0
    assert open_(anchor, sealed) == secret


def test_a_slow_server_is_waited_for(tang: Tang, between: Between) -> None:
    anchor, secret = pinned(tang, between.url), Secret.random()
    sealed = sealed_by(anchor, secret)
    thought = threading.Event()

    def slowly(request: Request) -> Reply:
        thought.wait(0.2)
        return between.passed_on(request)

    between.now = slowly
    assert open_(anchor, sealed) == secret


def test_a_knock_sends_nothing(tang: Tang, between: Between) -> None:
    asyncio.run(pinned(tang, between.url).knock())
    assert between.asked == []
    nobody = TangAnchor("nas", url=f"http://127.0.0.1:{free_port()}")
    assert isinstance(error_of(nobody.knock()), Unreachable)


def test_a_path_before_adv_is_kept_and_a_slash_after_it_is_not_doubled(
    tang: Tang, between: Between
) -> None:
    def below(request: Request) -> Reply:
        assert request.path.startswith("/tang/")
        path = request.path.removeprefix("/tang")
        return between.passed_on(Request(request.method, path, request.body))

    between.now = below
    for url in (f"{between.url}/tang", f"{between.url}/tang/"):
        anchor = pinned(tang, url)
        open_(anchor, sealed_by(anchor))
    assert not any("//" in request.path for request in between.asked)


def test_the_kid_of_a_signing_key_is_refused(tang: Tang) -> None:
    secret, digest = Secret.random(), crypto.sha256(CONTEXT)
    signing = json.loads(tang.keys("ES512")[0].read_text())
    header = {"alg": "ECDH-ES", "enc": "A256GCM", "apu": to_base64url(digest)}
    public = JWK(**{name: signing[name] for name in ("kty", "crv", "x", "y")})
    token = JWE(
        secret.reveal(), protected={**header, "kid": public.thumbprint()}, recipient=public
    ).serialize(compact=True)
    error = error_of(pinned(tang).open({"jwe": to_base64(token.encode())}, CONTEXT))
    assert isinstance(error, Refused)
