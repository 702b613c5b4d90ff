"""The ``seal`` stanza in a server's configuration, HCL or JSON; nothing else of it is understood.

HCL is read as far as it takes to tell what is a text, a comment or a heredoc from what is a
brace. What a person wrote within the stanza stays as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from kluis.errors import DocumentError, UsageError
from kluis.keyring.strict import JSON, read_json

MAX_CONFIG_BYTES: Final = 1024 * 1024

_TOKEN: Final = re.compile(
    r"(?P<space>[\s,]+)"
    r"|(?P<comment>(?:#|//)[^\n]*|/\*.*?\*/)"
    r'|(?P<text>"(?:[^"\\\n]|\\.)*")'
    r"|(?P<heredoc><<-?(?P<mark>\w+)\n.*?^[ \t]*(?P=mark)[ \t]*$)"
    r"|(?P<word>[\w.+-]+)"
    r"|(?P<sign>[{}\[\]=:])",
    re.DOTALL | re.MULTILINE,
)
_KIND: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Stanza:
    """A seal stanza: its kind, the lines within it, and those fields that are plain texts."""

    kind: str
    body: str = field(repr=False)
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)

    def text(self, *, disabled: bool = False) -> str:
        """The stanza as a server reads it."""
        body = re.sub(r"\A(?:[ \t\r]*\n)+", "", self.body).rstrip()
        ends = ['  disabled = "true"'] if disabled else []
        return "\n".join([f'seal "{self.kind}" {{', *([body] if body else []), *ends, "}", ""])


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


def seal_of(config: str) -> Stanza | None:
    """The one seal stanza of a configuration; None when there is none.

    Raises UsageError for what can't be read, for several stanzas, and for a disabled one.
    """
    if len(config) > MAX_CONFIG_BYTES:
        raise _unusable(f"it has more than {MAX_CONFIG_BYTES} bytes")
    found = _in_json(config) if config.lstrip().startswith("{") else _in_hcl(config)
    if len(found) > 1:
        raise _unusable("it has more than one seal stanza")
    if not found:
        return None
    if found[0].fields.get("disabled", "false").lower() not in ("false", "0", ""):
        raise _unusable("its seal stanza is disabled")
    return found[0]


def _unusable(why: str) -> UsageError:
    return UsageError(
        f"the server's configuration can't be used: {why}",
        "the seal stanza that the server runs with is taken from it",
        "give the file as the running server has it, or one with that stanza alone",
    )


def _in_json(config: str) -> list[Stanza]:
    try:
        parsed = read_json(config)
    except DocumentError:
        raise _unusable("it begins like JSON, and is none") from None
    seals = parsed.get("seal") if isinstance(parsed, dict) else None
    blocks = seals if isinstance(seals, list) else [] if seals is None else [seals]
    return [stanza for block in blocks for stanza in _blocks(block)]


def _blocks(block: JSON) -> Iterator[Stanza]:
    if not isinstance(block, dict):
        raise _unusable("its seal is not an object")
    for kind, members in block.items():
        inner = members[0] if isinstance(members, list) and len(members) == 1 else members
        if not isinstance(inner, dict) or not _KIND.fullmatch(kind):
            raise _unusable("its seal is not an object by its kind")
        yield _from_members(kind, inner)


def _from_members(kind: str, members: Mapping[str, JSON]) -> Stanza:
    if not all(isinstance(value, str | bool | int) for value in members.values()):
        raise _unusable("its seal has a field that is neither a text nor a number")
    kept = {name: value for name, value in members.items() if name != "disabled"}
    lines = (f"  {json.dumps(name)} = {json.dumps(value)}" for name, value in kept.items())
    fields = {name: str(value) for name, value in members.items()}
    return Stanza(kind, "\n".join(lines), fields)


def _in_hcl(config: str) -> list[Stanza]:
    tokens = list(_tokens(config))
    found: list[Stanza] = []
    depth = 0
    for at, token in enumerate(tokens):
        if token.kind == "sign":
            depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token.text, 0)
        elif depth == 0 and token.text.strip('"') == "seal" and _opens(tokens, at):
            found.append(_stanza(config, tokens, at))
        if depth < 0:
            break
    if depth:
        raise _unusable("its braces do not match")
    return found


def _tokens(config: str) -> Iterator[_Token]:
    at = 0
    while at < len(config):
        match = _TOKEN.match(config, at)
        if match is None:
            line = config.count("\n", 0, at) + 1
            raise _unusable(f"line {line} is not HCL")
        kind = match.lastgroup if match["heredoc"] is None else "heredoc"
        if kind not in ("space", "comment"):
            yield _Token(str(kind), match[0], at, match.end())
        at = match.end()


def _opens(tokens: list[_Token], at: int) -> bool:
    """Whether a stanza begins here: a kind, and a brace."""
    following = tokens[at + 1 : at + 3]
    return len(following) == 2 and following[0].kind in ("text", "word") and _is(following[1], "{")


def _is(token: _Token, sign: str) -> bool:
    return token.kind == "sign" and token.text == sign


def _stanza(config: str, tokens: list[_Token], at: int) -> Stanza:
    kind = tokens[at + 1].text.strip('"')
    if not _KIND.fullmatch(kind):
        raise _unusable("its seal stanza has no kind")
    inner = _inner(tokens, at + 3)
    fields, switch = _fields(inner)
    start = tokens[at + 2].end
    end = inner[-1].end if inner else start
    cut = switch or (end, end)
    return Stanza(kind, config[start : cut[0]] + config[cut[1] : end], fields)


def _inner(tokens: list[_Token], first: int) -> list[_Token]:
    """The tokens up to the brace that ends the stanza."""
    depth = 1
    for at in range(first, len(tokens)):
        depth += _is(tokens[at], "{") - _is(tokens[at], "}")
        if depth == 0:
            return tokens[first:at]
    raise _unusable("its braces do not match")


def _fields(inner: list[_Token]) -> tuple[dict[str, str], tuple[int, int] | None]:
    """The plain fields, and where ``disabled`` is written."""
    fields: dict[str, str] = {}
    switch: tuple[int, int] | None = None
    for name, sign, value in zip(inner, inner[1:], inner[2:], strict=False):
        if not _is(sign, "=") or value.kind not in ("text", "word"):
            continue
        key = name.text.strip('"')
        fields[key] = _plain(value)
        if key == "disabled":
            switch = name.start, value.end
    return fields, switch


def _plain(token: _Token) -> str:
    if token.kind == "word":
        return token.text
    try:
        value = json.loads(token.text)
    except ValueError:
        return token.text[1:-1]
    return str(value)
