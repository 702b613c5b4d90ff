"""The document: its canonical bytes, and what is refused before anything is opened."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kluis.errors import DocumentError, Inconsistent, TooLarge, WrongType
from kluis.keyring import document, policy, tree
from kluis.keyring.document import Body, Client, Document, KeyEntry, Token, from_bytes, to_bytes
from kluis.keyring.keys import KEY_KINDS
from kluis.keyring.policy import KEY_NAME_PATTERN, Policy
from tests.keyring.strategies import KEYRING_ID, NOW, make, policies, tree_of

times = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(  # noqa: DTZ001
    lambda t: t.strftime("%Y-%m-%dT%H:%M:%SZ").zfill(20)
)
key_names = st.from_regex(r"\A(?:" + KEY_NAME_PATTERN + r")\Z")
names = st.from_regex(r"\A" + policy.NAME_PATTERN + r"\Z")


@st.composite
def key_entries(draw: st.DrawFn) -> KeyEntry:
    latest = draw(st.integers(1, 1024))
    kind = draw(st.sampled_from(KEY_KINDS))
    return KeyEntry(kind, latest, draw(st.integers(1, latest)))


@st.composite
def documents(draw: st.DrawFn, rules: st.SearchStrategy[Policy] = policies()) -> Document:  # noqa: B008
    """Any document that is right in form; its body is random bytes."""
    rule = draw(rules)
    keys = draw(st.dictionaries(key_names, key_entries(), max_size=4))
    digests = iter(draw(st.lists(st.binary(min_size=32, max_size=32), unique=True, max_size=6)))
    expiry = st.none() | times
    clients = {
        name: Client(
            tokens=tuple(
                Token(d.hex(), draw(times), draw(expiry)) for d in (next(digests, None),) if d
            ),
            keys=tuple(sorted(draw(st.sets(st.sampled_from(sorted(keys)))))) if keys else (),
            certificate_san=draw(st.none() | st.from_regex(r"\A[\x21-\x7e]{1,40}\Z")),
            networks=tuple(sorted(draw(st.sets(st.ip_addresses().map(str), max_size=3)))),
        )
        for name in draw(st.sets(names, max_size=3))
    }
    return Document(
        id=str(draw(st.uuids())),
        name=draw(names),
        epoch=draw(st.integers(1, 2**53 - 1)),
        revision=draw(st.integers(1, 2**53 - 1)),
        written=draw(times),
        opens=policy.show(rule),
        tree=tree_of(rule),
        keys=keys,
        clients=clients,
        body=Body(
            draw(st.binary(min_size=32, max_size=32)), bytes(12), draw(st.binary(min_size=16))
        ),
    )


@given(documents())
def test_a_document_reads_back_from_its_bytes(one: Document) -> None:
    data = to_bytes(one)
    assert from_bytes(data) == one
    assert to_bytes(from_bytes(data)) == data


@given(documents(), st.data())
def test_no_two_documents_have_the_same_bytes(one: Document, data: st.DataObject) -> None:
    other = data.draw(documents())
    assert (to_bytes(one) == to_bytes(other)) == (one == other)


@given(documents())
def test_the_associated_data_is_the_document_without_its_ciphertext(one: Document) -> None:
    proven = document.associated_data(one)
    shorter = document.associated_data(replace(one, body=replace(one.body, ciphertext=bytes(99))))
    assert proven == shorter
    assert b'"ciphertext"' not in proven
    with pytest.raises(DocumentError):
        from_bytes(proven)


def test_a_context_names_everything_that_a_leaf_is_bound_to() -> None:
    made = make("disk or nas")
    assert made.document.context((1,), "static") == f"kluis/1|{KEYRING_ID}|1|/1|static".encode()
    assert document.context("id", 7, (), "tpm2") == b"kluis/1|id|7|/|tpm2"


@given(
    st.tuples(
        st.uuids().map(str),
        st.integers(1, 99),
        st.lists(st.integers(0, 31)).map(tuple),
        st.sampled_from(["static", "tpm2"]),
    ),
    st.tuples(
        st.uuids().map(str),
        st.integers(1, 99),
        st.lists(st.integers(0, 31)).map(tuple),
        st.sampled_from(["static", "tpm2"]),
    ),
)
def test_no_two_leaves_share_a_context(
    one: tuple[str, int, tree.Path, str], other: tuple[str, int, tree.Path, str]
) -> None:
    assert (document.context(*one) == document.context(*other)) == (one == other)


@given(st.dates())
@example(datetime(2024, 2, 29, tzinfo=UTC).date())
@example(datetime(2000, 2, 29, tzinfo=UTC).date())
def test_every_day_that_exists_can_be_written(day: object) -> None:
    made = make("disk").document
    written = f"{day}T23:59:59Z"
    assert from_bytes(to_bytes(replace(made, written=written))).written == written
    assert datetime.fromisoformat(written).utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "written",
    [
        "2023-02-29",
        "1900-02-29",
        "0000-01-01",
        "2025-13-01",
        "2025-00-10",
        "2025-04-31",
        "2025-01-32",
        "2025-01-00",
        "25-01-01",
    ],
)
def test_a_day_that_does_not_exist_is_refused(written: str) -> None:
    made = make("disk").document
    with pytest.raises(WrongType):
        from_bytes(to_bytes(replace(made, written=f"{written}T00:00:00Z")))


@pytest.mark.parametrize("clock", ["24:00:00", "00:60:00", "00:00:60", "0:00:00"])
def test_a_time_that_no_clock_shows_is_refused(clock: str) -> None:
    made = make("disk").document
    with pytest.raises(WrongType):
        from_bytes(to_bytes(replace(made, written=f"2025-01-01T{clock}Z")))


def test_a_document_that_could_not_be_read_back_is_not_written() -> None:
    made = make("disk").document
    client = Client(tuple(Token(f"{i:064x}", NOW) for i in range(8)), ())
    many = {f"c{i}": client for i in range(10_000)}
    with pytest.raises(TooLarge):
        to_bytes(replace(made, clients=many))


def test_a_full_document_of_sixteen_thousand_clients_is_read_in_seconds() -> None:
    made = make("disk").document
    clients = {f"c{i}": Client((Token(f"{i:064x}", NOW),), ()) for i in range(16_384)}
    full = replace(made, clients=clients)
    assert from_bytes(to_bytes(full)) == full
    with pytest.raises(TooLarge):
        from_bytes(to_bytes(replace(made, clients={**clients, "one-more": Client((), ())})))


def test_two_clients_cant_share_a_token() -> None:
    made = make("disk").document
    client = made.clients["bletchley"]
    with pytest.raises(Inconsistent):
        from_bytes(to_bytes(replace(made, clients={"a": client, "b": client})))


def test_an_opens_with_control_characters_never_reaches_a_terminal() -> None:
    made = make("disk").document
    with pytest.raises(WrongType) as raised:
        from_bytes(to_bytes(replace(made, opens="disk \x1b[2J")))
    assert raised.value.seen.isprintable()
