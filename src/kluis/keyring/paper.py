"""Paper shares: the secret of a ``people`` leaf as SLIP-39 mnemonics of 33 words.

A mnemonic carries a checksum and the identifier of its set, so a mistyped or foreign one is known
at once. It is shown once and never stored.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations, islice, product
from typing import Final

from shamir_mnemonic import MnemonicError, Share, combine_mnemonics, generate_mnemonics
from shamir_mnemonic.wordlist import WORD_INDEX_MAP, WORDLIST

from kluis.errors import (
    ForeignShare,
    RepeatedShare,
    UnknownWord,
    WrongChecksum,
    WrongShares,
    WrongWordCount,
)
from kluis.keyring.tree import PeopleLeaf
from kluis.secret import Secret

WORDS: Final = 33
MAX_LINE_CHARS: Final = 1024
MAX_ENTERED: Final = 32
"""Shares that one tray holds: twice as many as a set can have."""
MAX_SETS_TRIED: Final = 1024
"""Sets that are put together at one time: every one that 12 people can form."""
_ITERATION_EXPONENT: Final = 1
_PARAMETERS: Final = (True, _ITERATION_EXPONENT, 0, 1, 1)
_CLOSE: Final = 0.75
_AGAIN: Final = "read the share again and enter it anew"


@dataclass(frozen=True, slots=True)
class Issued:
    """A new set: one mnemonic for each person, in order."""

    leaf: PeopleLeaf
    mnemonics: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Issued({self.leaf.name}, {len(self.mnemonics)} mnemonics)"


@dataclass(frozen=True, slots=True)
class PaperShare:
    """One share as it was read; its words never print. ``index`` counts from 0."""

    identifier: int
    threshold: int
    index: int
    mnemonic: str = field(repr=False)


def issue(name: str, secret: Secret, threshold: int, shares: int) -> Issued:
    """Split a secret into mnemonics; any ``threshold`` of the ``shares`` give it back.

    Raises ValueError for what SLIP-39 does not have: more than 16 shares, or 1 of several.
    """
    group = generate_mnemonics(
        group_threshold=1,
        groups=[(threshold, shares)],
        master_secret=secret.reveal(),
        extendable=True,
        iteration_exponent=_ITERATION_EXPONENT,
    )[0]
    identifier = Share.from_mnemonic(group[0]).identifier
    return Issued(PeopleLeaf(name, threshold, shares, identifier), tuple(group))


def read(line: str) -> PaperShare:
    """The share in a line. Raises ShareError and says which word is wrong."""
    words = line[:MAX_LINE_CHARS].lower().split()
    for position, word in enumerate(words, 1):
        if word not in WORD_INDEX_MAP:
            raise _unknown(word, position)
    if len(words) != WORDS:
        raise WrongWordCount(
            f"{len(words)} words", f"a share has {WORDS} words", "enter all of them on one line"
        )
    mnemonic = " ".join(words)
    try:
        share = Share.from_mnemonic(mnemonic)
    except MnemonicError:
        raise WrongChecksum(
            "the checksum does not fit",
            "every word exists, but one of them is another one's, or two are swapped",
            _AGAIN,
        ) from None
    # whoever forges a share also picks its exponent: up to hours of work to put it together
    found = (
        share.extendable,
        share.iteration_exponent,
        share.group_index,
        share.group_threshold,
        share.group_count,
    )
    if found != _PARAMETERS:
        raise ForeignShare(
            "a SLIP-39 share, but not one that kluis prints",
            "it may be of a wallet",
            "look for the share that was printed last",
        )
    return PaperShare(share.identifier, share.member_threshold, share.index, mnemonic)


def _unknown(word: str, position: int) -> UnknownWord:
    # The word is shown only when it looks like a typing slip: it could be a password.
    close = difflib.get_close_matches(word, WORDLIST, n=1, cutoff=_CLOSE)
    hint = f" ({word!r}; did you mean {close[0]!r}?)" if close else ""
    return UnknownWord(
        f"word {position} is not in the word list{hint}",
        "a share has words of the SLIP-39 list only",
        _AGAIN,
        position,
    )


class PaperTray:
    """The shares of one people leaf that were entered so far."""

    def __init__(self, leaf: PeopleLeaf) -> None:
        self._leaf = leaf
        self._shares: list[PaperShare] = []

    @property
    def threshold(self) -> int:
        """How many shares are needed."""
        return self._leaf.threshold

    @property
    def entered(self) -> int:
        """How many different shares lie here."""
        return len({share.index for share in self._shares})

    @property
    def missing(self) -> int:
        """How many more are needed."""
        return max(0, self._leaf.threshold - self.entered)

    def belongs(self, share: PaperShare) -> bool:
        """Whether the share is one of this leaf's set."""
        same_set = (share.identifier, share.threshold) == (
            self._leaf.identifier,
            self._leaf.threshold,
        )
        return same_set and share.index < self._leaf.shares

    def add(self, share: PaperShare) -> None:
        """Put a share here. Raises ForeignShare or RepeatedShare, WrongShares for too many."""
        if not self.belongs(share):
            raise ForeignShare(
                f"this share is of another set than {self._leaf.name}'s",
                "it may be of an older issue, or of another keyring",
                "look for the share that was printed last",
            )
        if share in self._shares:
            raise RepeatedShare(
                f"share {share.index + 1} of {self._leaf.name} was entered already",
                "the same share counts once",
                "enter another person's share",
            )
        if len(self._shares) == MAX_ENTERED:
            raise WrongShares(
                f"{MAX_ENTERED} shares of {self._leaf.name} were entered already",
                "no set has so many: somebody enters forged ones",
                "lock the keyring to forget them, then enter the good ones only",
            )
        self._shares.append(share)

    def secret(self) -> Secret:
        """The secret of the leaf, by the set that fits; of several, by the one entered last.

        Raises WrongShares, naming nobody: the digest in a set proves the set, not the shares.
        """
        for chosen in islice(self._sets(), MAX_SETS_TRIED):
            try:
                return Secret(combine_mnemonics([share.mnemonic for share in chosen]))
            except MnemonicError:
                continue
        raise WrongShares(
            f"these {self.entered} shares of {self._leaf.name} do not fit together",
            "at least one of them is forged, or of a set with the same number",
            "enter another share; a good set among them is found",
        )

    def _sets(self) -> Iterator[tuple[PaperShare, ...]]:
        """Every choice of enough different shares; the last entered come first."""
        by_index: dict[int, list[PaperShare]] = {}
        for share in reversed(self._shares):
            by_index.setdefault(share.index, []).append(share)
        for some in combinations(by_index.values(), self._leaf.threshold):
            yield from product(*some)

    def clear(self) -> None:
        """Forget what was entered."""
        self._shares.clear()
