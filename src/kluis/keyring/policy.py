"""The ``opens`` expression: who can open a keyring together.

    expression = all { "or" all }
    all        = term { "and" term }
    term       = NAME | "(" expression ")" | NUMBER "of" "(" expression { "," expression } ")"

``and`` is *n of n*, ``or`` is *1 of n*. A parsed policy is in normal form, so that
``parse(show(policy)) == policy``: nested ``or`` and nested ``and`` are flat, and a group of one
is its only member.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from kluis.errors import PolicyError

MAX_EXPRESSION_CHARS: Final = 4096
MAX_ANCHORS: Final = 32
MAX_DEPTH: Final = 8
MAX_NAME_CHARS: Final = 63
NAME_PATTERN: Final = rf"[a-z][a-z0-9-]{{0,{MAX_NAME_CHARS - 1}}}"
KEY_NAME_PATTERN: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"

_RESERVED: Final = frozenset({"or", "and", "of"})
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<name>[a-z][a-z0-9-]*)|(?P<number>[0-9]+)|(?P<mark>[(),]))", re.ASCII
)
_SPACE: Final = " \t\n\r\f\v"  # what \s means in ASCII
_SHOWN_CHARS: Final = 160
_EXAMPLE: Final = 'for example: opens = "disk or 2 of (nas, cloud, family)"'


@dataclass(frozen=True, slots=True)
class Name:
    """One anchor, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One member is enough."""

    of: tuple[Policy, ...]


@dataclass(frozen=True, slots=True)
class Threshold:
    """``threshold`` of the members are enough; at least 2."""

    threshold: int
    of: tuple[Policy, ...]


Policy = Name | AnyOf | Threshold


def parse(expression: str) -> Policy:
    """The policy that an expression says. Raises PolicyError with the position."""
    if len(expression) > MAX_EXPRESSION_CHARS:
        raise PolicyError(
            f"the expression has {len(expression)} characters",
            f"more than {MAX_EXPRESSION_CHARS} are not read",
            "name fewer anchors",
        )
    policy = _Parser(expression).parse()
    _refuse_repeats(expression, policy)
    return policy


def show(policy: Policy) -> str:
    """The expression of a policy, as a person would write it."""
    match policy:
        case Name(name):
            return name
        case AnyOf(of):
            return " or ".join(show(member) for member in of)
        case Threshold(threshold, of) if threshold == len(of):
            return " and ".join(_show_in_brackets(member) for member in of)
        case _:
            return f"{policy.threshold} of ({', '.join(show(member) for member in policy.of)})"


def depth(policy: Policy) -> int:
    """How many groups lie within each other; a name alone has none."""
    match policy:
        case Name():
            return 0
        case _:
            return 1 + max(depth(member) for member in policy.of)


def names(policy: Policy) -> Iterator[str]:
    """The anchors of a policy, from left to right."""
    match policy:
        case Name(name):
            yield name
        case _:
            for member in policy.of:
                yield from names(member)


def check_known(expression: str, policy: Policy, known: Iterable[str]) -> None:
    """Refuse a policy that names an anchor which does not exist."""
    declared = sorted(known)
    for name in names(policy):
        if name not in declared:
            raise _error(
                expression,
                _position_of(expression, name),
                f"{name!r} is not an anchor",
                f"the anchors are: {', '.join(declared) or 'none yet'}",
                f"correct the name, or declare [anchors.{name}]",
            )


def _show_in_brackets(member: Policy) -> str:
    return f"({show(member)})" if isinstance(member, AnyOf) else show(member)


def _position_of(expression: str, name: str, occurrence: int = 0) -> int:
    found = [
        m.start() for m in re.finditer(rf"(?<![a-z0-9-]){re.escape(name)}(?![a-z0-9-])", expression)
    ]
    return found[min(occurrence, len(found) - 1)]


def _refuse_repeats(expression: str, policy: Policy) -> None:
    seen: set[str] = set()
    for name in names(policy):
        if name in seen:
            raise _error(
                expression,
                _position_of(expression, name, occurrence=1),
                f"the anchor {name!r} is named twice",
                "one anchor would count as two",
                "name each anchor once",
            )
        seen.add(name)


def _error(expression: str, position: int, seen: str, means: str, next_step: str) -> PolicyError:
    """An error that shows where, on one line: a mark stands in front of the place."""
    line = "".join(c if c.isprintable() else " " for c in expression)
    before, after = line[:position][-_SHOWN_CHARS:], line[position:][:_SHOWN_CHARS]
    return PolicyError(f"{seen}: {before}▸{after}", means, next_step, position)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    kind: str
    position: int


class _Parser:
    """Recursive descent; depth is bounded, so that nesting can't exhaust the stack."""

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._tokens = list(self._scan())
        self._next = 0

    def parse(self) -> Policy:
        if self._peek().kind == "end":
            raise self._error("the expression is empty", "an empty rule opens nothing", _EXAMPLE)
        policy = self._expression_at(depth=0)
        if self._peek().kind != "end":
            what = "this bracket was never opened" if self._peek().text == ")" else "unexpected"
            raise self._error(what, "the rule ends before this place", _EXAMPLE)
        if len(list(names(policy))) > MAX_ANCHORS:
            raise self._error(
                f"the rule names more than {MAX_ANCHORS} anchors",
                "so many can't be explained or tried in time",
                "name fewer anchors",
            )
        if depth(policy) > MAX_DEPTH:
            raise self._too_deep()
        return policy

    def _scan(self) -> Iterator[_Token]:
        text, position = self._expression.rstrip(_SPACE), 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                at = position + len(text[position:]) - len(text[position:].lstrip(_SPACE))
                raise _error(
                    self._expression,
                    at,
                    f"the character {text[at]!r} has no meaning here",
                    "names have small letters, digits and hyphens and start with a letter",
                    _EXAMPLE,
                )
            kind = str(match.lastgroup)
            word = match.group(kind)
            if kind == "name" and len(word) > MAX_NAME_CHARS:
                raise _error(
                    self._expression,
                    match.start(kind),
                    f"a name of {len(word)} characters",
                    f"a name has at most {MAX_NAME_CHARS}",
                    "shorten it",
                )
            yield _Token(word, "word" if word in _RESERVED else kind, match.start(kind))
            position = match.end()
        yield _Token("", "end", len(text))

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _accept(self, text: str) -> bool:
        if self._peek().text == text:
            self._next += 1
            return True
        return False

    def _error(self, seen: str, means: str, next_step: str, at: int | None = None) -> PolicyError:
        position = self._peek().position if at is None else at
        return _error(self._expression, position, seen, means, next_step)

    def _too_deep(self) -> PolicyError:
        return self._error(
            f"more than {MAX_DEPTH} groups within each other",
            "nobody could check such a rule",
            "write it flatter",
        )

    def _expression_at(self, depth: int) -> Policy:
        if depth > MAX_DEPTH:
            raise self._too_deep()
        return _any_of(self._list_of(self._all_of, "or", depth))

    def _all_of(self, depth: int) -> Policy:
        return _all_of(self._list_of(self._term, "and", depth))

    def _list_of(self, part: Callable[[int], Policy], word: str, depth: int) -> list[Policy]:
        members = [part(depth)]
        while self._accept(word):
            members.append(part(depth))
        return members

    def _term(self, depth: int) -> Policy:
        token = self._peek()
        if token.kind == "name":
            self._next += 1
            return Name(token.text)
        if token.kind == "number":
            return self._threshold(depth)
        if token.text == "(":
            self._next += 1
            policy = self._expression_at(depth + 1)
            self._close(token)
            return policy
        found = f"found {token.text!r}" if token.text else "the rule ends here"
        raise self._error(f"an anchor's name is missing: {found}", "a rule joins names", _EXAMPLE)

    def _threshold(self, depth: int) -> Policy:
        number = self._peek()
        self._next += 1
        if not self._accept("of"):
            raise self._error(
                f"'of' is missing after {number.text}", "a threshold reads K of (…)", _EXAMPLE
            )
        bracket = self._peek()
        if not self._accept("("):
            raise self._error(
                "a bracket is missing after 'of'", "a threshold reads K of (…)", _EXAMPLE
            )
        members = [self._expression_at(depth + 1)]
        while self._accept(","):
            members.append(self._expression_at(depth + 1))
        self._close(bracket)
        # a number of absurd length is above every count; int() of it would be slow
        count = int(number.text) if len(number.text) <= 4 else MAX_ANCHORS + 1
        if not 1 <= count <= len(members):
            raise self._error(
                f"{number.text} of {len(members)} can't be",
                "a threshold lies between 1 and the number of members",
                f"write a number from 1 to {len(members)}",
                at=number.position,
            )
        return threshold(count, members)

    def _close(self, opened: _Token) -> None:
        if not self._accept(")"):
            raise self._error(
                "this bracket is never closed",
                f"a ')' or ',' was expected at character {self._peek().position + 1}",
                "close it",
                at=opened.position,
            )


def threshold(count: int, members: Sequence[Policy]) -> Policy:
    """``count`` of ``members`` in normal form."""
    if count == 1:
        return _any_of(members)
    if count == len(members):
        return _all_of(members)
    return Threshold(count, tuple(members))


def _any_of(members: Sequence[Policy]) -> Policy:
    if len(members) == 1:
        return members[0]
    flat: list[Policy] = []
    for member in members:
        flat.extend(member.of if isinstance(member, AnyOf) else (member,))
    return AnyOf(tuple(flat))


def _all_of(members: Sequence[Policy]) -> Policy:
    if len(members) == 1:
        return members[0]
    flat: list[Policy] = []
    for member in members:
        match member:
            case Threshold(count, of) if count == len(of):
                flat.extend(of)
            case _:
                flat.append(member)
    return Threshold(len(flat), tuple(flat))
