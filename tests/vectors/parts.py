"""Vectors of the parts: policies, Shamir, Transit ciphertexts, sealed leaves, paper."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from shamir_mnemonic import Share

from tests.vectors.keyrings import ID, PASSPHRASE
from tests.vectors.scheme import (
    JSON,
    Object,
    Stream,
    b64,
    context,
    identifier,
    paper,
    seal_passphrase,
    seal_static,
    split,
    transit,
)


def vectors() -> Iterator[tuple[str, Object]]:
    """Each by the name of its file."""
    yield from _policies()
    yield from _shamir()
    yield from _transit()
    yield from _leaves()
    yield from _paper()


def _policies() -> Iterator[tuple[str, Object]]:
    for name, expression, shown in [
        ("name", " disk ", "disk"),
        ("brackets", "((disk))", "disk"),
        ("flat-or", "a or (b or (c))", "a or b or c"),
        ("flat-and", "a and (b and c)", "a and b and c"),
        ("one-of", "1 of (a, b or c)", "a or b or c"),
        ("all-of", "2 of (a and b, c)", "a and b and c"),
        ("one-of-one", "1 of (a)", "a"),
        ("precedence", "a or b and c", "a or b and c"),
        ("or-in-and", "(a or b) and c", "(a or b) and c"),
        (
            "groups-as-members",
            "2 of (a or b,c and d,2 of(e,f,g))",
            "2 of (a or b, c and d, 2 of (e, f, g))",
        ),
        ("words-in-names", "or-1 or and-1 and ofen", "or-1 or and-1 and ofen"),
        ("leading-zero", "02 of (a, b, c)", "2 of (a, b, c)"),
    ]:
        yield (
            f"policy/{name}",
            {"kind": "policy", "expression": expression, "shown": shown, "error": None},
        )
    many = " or ".join(f"a{i}" for i in range(33))
    for name, expression, position in [
        ("empty", "", 0),
        ("unclosed-bracket", "a or (b and c", 5),
        ("unopened-bracket", "a)", 1),
        ("threshold-zero", "a or 0 of (b, c)", 5),
        ("threshold-above", "3 of (a, b)", 0),
        ("threshold-huge", "9" * 400 + " of (a, b)", 0),
        ("of-missing", "2 (a, b)", 2),
        ("bracket-missing", "2 of a, b", 5),
        ("name-twice", "a or b and a", 11),
        ("capital", "a or B", 5),
        ("word-as-name", "a or of", 5),
        ("dangling-or", "a or", 4),
        ("two-names", "a b", 2),
        ("no-members", "1 of ()", 6),
        ("dangling-comma", "1 of (a,)", 8),
        ("name-too-long", "a or " + "b" * 63 + "or c", 5),
        ("not-ascii-space", "a\u00a0or b", 1),
        ("33-anchors", many, len(many)),
        ("nine-brackets", "(" * 9 + "a" + ")" * 9, 9),
        ("too-long", "a" + " " * 4096, 0),
    ]:
        yield (
            f"policy/refused/{name}",
            {
                "kind": "policy",
                "expression": expression,
                "error": "PolicyError",
                "position": position,
            },
        )


def _shamir() -> Iterator[tuple[str, Object]]:
    for threshold, shares in [(1, 1), (1, 3), (2, 2), (2, 3), (3, 5), (7, 16), (3, 255)]:
        random = Stream(f"shamir {threshold} of {shares}")
        secret = random(32)
        made = split(secret, threshold, shares, random)
        listed: dict[str, JSON] = {str(x): y.hex() for x, y in enumerate(made[:16], 1)}
        if shares > 16:
            listed[str(shares)] = made[-1].hex()
        yield (
            f"shamir/{threshold}-of-{shares}",
            {
                "kind": "shamir",
                "threshold": threshold,
                "secret": secret.hex(),
                "shares": listed,
                "error": None,
            },
        )
    for name, bad in [
        ("none", {}),
        ("x-256", {"256": "00"}),
        ("lengths-differ", {"1": "00", "2": "0000"}),
    ]:
        yield (
            f"shamir/refused/{name}",
            {"kind": "shamir", "shares": bad, "error": "SharesCantCombine"},
        )


def _transit() -> Iterator[tuple[str, Object]]:
    random = Stream("transit")
    versions = {"2": random(32), "3": random(32), "5": random(32)}
    keys: Object = {
        "kind": "transit",
        "material": {number: key.hex() for number, key in versions.items()},
        "minimum": 3,
    }
    good = transit(versions["5"], 5, b"a", random)
    for name, number, plaintext in [
        ("probe", "5", b"a"),
        ("empty", "5", b""),
        ("older", "3", bytes(64)),
    ]:
        text = transit(versions[number], int(number), plaintext, random)
        yield (
            f"transit/{name}",
            {**keys, "ciphertext": text, "plaintext": plaintext.hex(), "error": None},
        )
    body = good.split(":")[2]
    for name, error, text in [
        ("below-minimum", "VersionRefused", transit(versions["2"], 2, b"a", random)),
        ("version-never-made", "VersionRefused", good.replace("v5", "v6")),
        ("version-dropped", "VersionRefused", good.replace("v5", "v4")),
        ("other-version", "BadCiphertext", good.replace("v5", "v3")),
        ("version-zero", "BadCiphertext", good.replace("v5", "v0")),
        ("version-05", "BadCiphertext", good.replace("v5", "v05")),
        ("version-signed", "BadCiphertext", good.replace("v5", "v+5")),
        ("version-not-ascii", "BadCiphertext", good.replace("v5", "v\u0665")),
        ("version-huge", "BadCiphertext", good.replace("v5", "v" + "5" * 5000)),
        ("other-prefix", "BadCiphertext", good.replace("vault", "bao")),
        ("two-parts", "BadCiphertext", "vault:v5"),
        ("four-parts", "BadCiphertext", good + ":"),
        ("not-base64", "BadCiphertext", f"vault:v5:!{body[1:]}"),
        ("unpadded", "BadCiphertext", "vault:v5:AAA"),
        ("not-ascii", "BadCiphertext", f"vault:v5:é{body[1:]}"),
        ("no-nonce", "BadCiphertext", "vault:v5:"),
        ("cut", "BadCiphertext", "vault:v5:" + b64(bytes(27))),
        ("bit-flipped", "BadCiphertext", f"vault:v5:{'B' if body[0] == 'A' else 'A'}{body[1:]}"),
    ]:
        yield f"transit/refused/{name}", {**keys, "ciphertext": text, "error": error}


def _leaves() -> Iterator[tuple[str, Object]]:
    random = Stream("leaf")
    key, secret = random(32), random(32)
    bound = context({"id": ID, "epoch": 1}, "/0", "static")
    box = seal_static(key, secret, bound, random)
    static: Object = {"kind": "static", "key": key.hex(), "context": bound.decode()}
    yield "leaf/static", {**static, "sealed": box, "secret": secret.hex(), "error": None}
    for name, changed in [
        ("path", "/0|static>/1|static"),
        ("epoch", "|1|>|2|"),
        ("keyring", "0c4f>0c4e"),
        ("version", "kluis/1>kluis/2"),
    ]:
        old, new = changed.split(">")
        other = bound.decode().replace(old, new)
        yield (
            f"leaf/refused/static-other-{name}",
            {**static, "context": other, "sealed": box, "error": "Damaged"},
        )
    yield (
        "leaf/refused/static-other-key",
        {**static, "key": bytes(32).hex(), "sealed": box, "error": "Damaged"},
    )
    for name, sealed in [
        ("short", {**box, "box": b64(bytes(59))}),
        ("extra", {**box, "extra": 1}),
        ("no-salt", {"box": box["box"]}),
    ]:
        yield f"leaf/refused/static-{name}", {**static, "sealed": sealed, "error": "Damaged"}
    bound = context({"id": ID, "epoch": 1}, "/", "passphrase")
    box = seal_passphrase(PASSPHRASE, secret, bound, random)
    phrase: Object = {"kind": "passphrase", "passphrase": PASSPHRASE, "context": bound.decode()}
    yield "leaf/passphrase", {**phrase, "sealed": box, "secret": secret.hex(), "error": None}
    yield (
        "leaf/refused/passphrase-wrong",
        {**phrase, "passphrase": PASSPHRASE + " ", "sealed": box, "error": "Refused"},
    )
    yield (
        "leaf/refused/passphrase-other-cost",
        {**phrase, "sealed": {**box, "iterations": 2}, "error": "Refused"},
    )


def _paper() -> Iterator[tuple[str, Object]]:
    random = Stream("paper")
    secret, other = random(32), random(32)
    for threshold, shares in [(1, 1), (2, 3), (3, 5), (16, 16)]:
        made = paper(secret, threshold, shares, random)
        yield f"paper/{threshold}-of-{shares}", _paper_vector(made, made, threshold, shares, secret)
    made = paper(secret, 2, 3, random)
    forged = replace(Share.from_mnemonic(made[0]), value=other).mnemonic()
    yield "paper/forged-one-beside-enough", _paper_vector(made, [forged, *made[1:]], 2, 3, secret)
    words = made[0].split()
    foreign = paper(secret, 2, 3, random)
    three = paper(secret, 3, 3, random)
    same_number = [
        replace(Share.from_mnemonic(m), identifier=identifier(made[0])).mnemonic()
        for m in paper(other, 2, 3, random)
    ]
    outside = replace(Share.from_mnemonic(made[0]), index=3).mnemonic()
    for name, error, lines in [
        ("empty-line", "WrongWordCount", [""]),
        ("word-missing", "WrongWordCount", [" ".join(words[:-1])]),
        ("word-too-many", "WrongWordCount", [made[0] + " academic"]),
        ("unknown-word", "UnknownWord", [" ".join(["academik", *words[1:]])]),
        ("not-letters", "UnknownWord", [" ".join(["\0", *words[1:]])]),
        ("other-word", "WrongChecksum", [" ".join([*words[:-1], _other(words[-1])])]),
        (
            "words-swapped",
            "WrongChecksum",
            [" ".join([*words[:9], words[10], words[9], *words[11:]])],
        ),
        ("twice", "RepeatedShare", [made[0], made[0]]),
        ("other-set", "ForeignShare", [made[0], foreign[1]]),
        ("other-threshold", "ForeignShare", [three[0]]),
        ("index-outside", "ForeignShare", [outside]),
        (
            "costly",
            "ForeignShare",
            [replace(Share.from_mnemonic(made[0]), iteration_exponent=15).mnemonic()],
        ),
        (
            "not-extendable",
            "ForeignShare",
            [replace(Share.from_mnemonic(made[0]), extendable=False).mnemonic()],
        ),
        (
            "of-a-group",
            "ForeignShare",
            [replace(Share.from_mnemonic(made[0]), group_count=2).mnemonic()],
        ),
        ("too-few", "WrongShares", [made[0]]),
        ("set-of-the-same-number", "WrongShares", [made[0], same_number[1]]),
        ("one-forged", "WrongShares", [forged, made[1]]),
    ]:
        yield f"paper/refused/{name}", _paper_vector(made, lines, 2, 3, None, error)


def _other(word: str) -> str:
    return "academic" if word != "academic" else "acid"


def _paper_vector(
    made: list[str],
    lines: list[str],
    threshold: int,
    shares: int,
    secret: bytes | None,
    error: str | None = None,
) -> Object:
    return {
        "kind": "paper",
        "leaf": {
            "people": "family",
            "threshold": threshold,
            "shares": shares,
            "identifier": identifier(made[0]),
        },
        "lines": lines,
        "secret": None if secret is None else secret.hex(),
        "error": error,
    }
