"""The keyring document: its types, its canonical bytes, and its strict reading.

The format is described in docs/FORMAT.md. The document is public: without the anchors it says
nothing but who could open it. Until the body's tag is verified nothing in it is believed.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kluis.errors import ForeignFormat, Inconsistent, NewerFormat, PolicyError, WrongType
from kluis.keyring import policy
from kluis.keyring import tree as trees
from kluis.keyring.crypto import NONCE_BYTES, SALT_BYTES, TAG_BYTES
from kluis.keyring.keys import KEY_KINDS, MAX_VERSIONS
from kluis.keyring.policy import KEY_NAME_PATTERN, NAME_PATTERN
from kluis.keyring.strict import (
    JSON,
    Fields,
    as_text,
    canonical,
    read_canonical,
    refuse_too_many,
    sorted_unique,
    to_base64,
)

_BACKUP: Final = "take the document from a backup or from the store's history"

FORMAT: Final = "keyring/1"
MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
MAX_BODY_BYTES: Final = 2 * 1024 * 1024
MAX_KEYS: Final = 1024
MAX_CLIENTS: Final = 16384
MAX_TOKENS: Final = 8
MAX_NETWORKS: Final = 256
TIME_PATTERN: Final = (
    r"(?!0000)[0-9]{4}-"
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    r"|02-(?:0[1-9]|1[0-9]|2[0-8])"
    r"|(?<=(?:0[48]|[2468][048]|[13579][26])-)02-29"
    r"|(?<=(?:[02468][048]|[13579][26])00-)02-29)"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z"
)
"""RFC 3339 in UTC, of days that exist: whoever parses a time later can't fail."""
UUID_PATTERN: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key as everybody may see it."""

    kind: str
    latest: int
    minimum: int


@dataclass(frozen=True, slots=True)
class Token:
    """A client's token, by its SHA-256 in hex; times are RFC 3339 in UTC."""

    sha256: str
    issued: str
    expires: str | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """A server that may use some keys of this keyring. Every condition that is set must fit."""

    tokens: tuple[Token, ...]
    keys: tuple[str, ...]
    certificate_san: str | None = None
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Body:
    """The encrypted body. The ciphertext ends with its tag."""

    salt: bytes
    nonce: bytes
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class Document:
    """A keyring document. ``epoch`` counts root secrets, ``revision`` writes, both from 1."""

    id: str
    name: str
    epoch: int
    revision: int
    written: str
    opens: str
    tree: trees.Node
    keys: Mapping[str, KeyEntry]
    clients: Mapping[str, Client]
    body: Body

    def context(self, path: trees.Path, kind: str) -> bytes:
        """What an anchor binds to the secret it seals."""
        return context(self.id, self.epoch, path, kind)


def context(keyring_id: str, epoch: int, path: trees.Path, kind: str) -> bytes:
    """``kluis/1|<keyring id>|<epoch>|<path in the tree>|<kind>``."""
    return f"kluis/1|{keyring_id}|{epoch}|{trees.show_path(path)}|{kind}".encode("ascii")


def to_bytes(document: Document) -> bytes:
    """The canonical bytes of a document. Raises TooLarge for one that could not be read back."""
    data = canonical(_to_json(document, with_ciphertext=True))
    refuse_too_many("the document", len(data), MAX_DOCUMENT_BYTES)
    return data


def associated_data(document: Document) -> bytes:
    """What the body's tag proves: the canonical document without ``body.ciphertext``."""
    return canonical(_to_json(document, with_ciphertext=False))


def _to_json(document: Document, *, with_ciphertext: bool) -> dict[str, JSON]:
    body: dict[str, JSON] = {
        "salt": to_base64(document.body.salt),
        "nonce": to_base64(document.body.nonce),
    }
    if with_ciphertext:
        body["ciphertext"] = to_base64(document.body.ciphertext)
    return {
        "kluis": FORMAT,
        "id": document.id,
        "name": document.name,
        "epoch": document.epoch,
        "revision": document.revision,
        "written": document.written,
        "opens": document.opens,
        "tree": trees.to_json(document.tree),
        "keys": {name: _key_to_json(key) for name, key in document.keys.items()},
        "clients": {name: _client_to_json(client) for name, client in document.clients.items()},
        "body": body,
    }


def _key_to_json(key: KeyEntry) -> dict[str, JSON]:
    return {"kind": key.kind, "latest": key.latest, "minimum": key.minimum}


def _client_to_json(client: Client) -> dict[str, JSON]:
    return {
        "tokens": [
            {"sha256": token.sha256, "issued": token.issued, "expires": token.expires}
            for token in client.tokens
        ],
        "keys": list(client.keys),
        "certificate_san": client.certificate_san,
        "networks": list(client.networks),
    }


def from_bytes(data: bytes) -> Document:
    """The document in some bytes. Raises DocumentError; nothing in it is proven yet."""
    fields = Fields(read_canonical(data, MAX_DOCUMENT_BYTES), "")
    _check_format(fields)
    document = Document(
        id=fields.text("id", UUID_PATTERN),
        name=fields.text("name", NAME_PATTERN),
        epoch=fields.integer("epoch", 1),
        revision=fields.integer("revision", 1),
        written=fields.text("written", TIME_PATTERN),
        opens=fields.text("opens", r"[\x20-\x7e]+", policy.MAX_EXPRESSION_CHARS),
        tree=trees.from_json(fields.take("tree")),
        keys=_keys(fields),
        clients=_clients(fields),
        body=_body(Fields(fields.take("body"), "body")),
    )
    fields.done()
    _check_policy(document)
    _check_clients(document)
    return document


def _check_format(fields: Fields) -> None:
    found = fields.take("kluis") if fields.has("kluis") else None
    if found == FORMAT:
        return
    if isinstance(found, str) and re.fullmatch(r"keyring/[1-9][0-9]{0,8}", found):
        raise NewerFormat(
            f"the format is {found}", f"this kluis reads {FORMAT}", "upgrade kluis, then try again"
        )
    raise ForeignFormat(
        "this is not a keyring document",
        f"its member 'kluis' does not say {FORMAT}",
        "check the path of the store",
    )


def _keys(fields: Fields) -> dict[str, KeyEntry]:
    return {
        name: _key(Fields(value, f"keys.{name}"))
        for name, value in fields.members("keys", KEY_NAME_PATTERN, MAX_KEYS)
    }


def _key(fields: Fields) -> KeyEntry:
    kind = fields.text("kind", "|".join(KEY_KINDS))
    latest = fields.integer("latest", 1, MAX_VERSIONS)
    entry = KeyEntry(kind, latest, fields.integer("minimum", 1, latest))
    fields.done()
    return entry


def _clients(fields: Fields) -> dict[str, Client]:
    return {
        name: _client(Fields(value, f"clients.{name}"))
        for name, value in fields.members("clients", NAME_PATTERN, MAX_CLIENTS)
    }


def _client(fields: Fields) -> Client:
    where = fields.where
    tokens = fields.items("tokens", MAX_TOKENS)
    keys = fields.items("keys", MAX_KEYS)
    networks = fields.items("networks", MAX_NETWORKS)
    client = Client(
        tokens=tuple(_token(Fields(t, f"{where}.tokens[{i}]")) for i, t in enumerate(tokens)),
        keys=sorted_unique(
            (as_text(key, f"{where}.keys", KEY_NAME_PATTERN) for key in keys), f"{where}.keys"
        ),
        certificate_san=fields.optional_text("certificate_san", r"[\x21-\x7e]+", 512),
        networks=sorted_unique(
            (_network(network, f"{where}.networks") for network in networks), f"{where}.networks"
        ),
    )
    fields.done()
    return client


def _network(value: JSON, where: str) -> str:
    text = as_text(value, where, r"[0-9a-f.:/]{2,64}")
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise WrongType(
            f"{where} names {text}, which is not a network", "it has host bits, or no form", _BACKUP
        ) from None
    return text


def _token(fields: Fields) -> Token:
    token = Token(
        sha256=fields.text("sha256", r"[0-9a-f]{64}"),
        issued=fields.text("issued", TIME_PATTERN),
        expires=fields.optional_text("expires", TIME_PATTERN),
    )
    fields.done()
    return token


def _body(fields: Fields) -> Body:
    body = Body(
        salt=fields.base64("salt", SALT_BYTES),
        nonce=fields.base64("nonce", NONCE_BYTES),
        ciphertext=fields.base64("ciphertext", limit_bytes=MAX_BODY_BYTES + TAG_BYTES),
    )
    fields.done()
    if len(body.ciphertext) < TAG_BYTES:
        raise Inconsistent("body.ciphertext is shorter than a tag", "it was cut", _BACKUP)
    return body


def _check_policy(document: Document) -> None:
    try:
        said = policy.parse(document.opens)
    except PolicyError as error:
        raise Inconsistent("'opens' can't be read", error.seen, _BACKUP) from None
    if policy.show(said) != document.opens or trees.to_policy(document.tree) != said:
        raise Inconsistent(
            "'opens' and 'tree' say different rules",
            "a reader of the one would be deceived by the other",
            _BACKUP,
        )


def _check_clients(document: Document) -> None:
    owners: dict[str, str] = {}
    for name, client in document.clients.items():
        for key in client.keys:
            if key not in document.keys:
                raise Inconsistent(
                    f"client {name} may use {key}, which is not a key",
                    "the document was put together wrongly",
                    _BACKUP,
                )
        for token in client.tokens:
            if token.sha256 in owners:
                raise Inconsistent(
                    f"a token of client {name} is also {owners[token.sha256]}'s",
                    "a token says who asks; one token is one client's, once",
                    _BACKUP,
                )
            owners[token.sha256] = name
