"""Fields of ``[servers.NAME]`` written into the text of kluis.toml; comments and layout stay.

The text is edited by lines, and what comes out is read again: it must say exactly what the old
text said and the new fields, or nothing is changed. So a form of TOML that is not foreseen here
can be refused, and never spoiled.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kluis.errors import SettingsError

Value = str | int | tuple[str, ...]

_KEY: Final = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\r\n]|\\.)*"|'[^'\r\n]*')"""
_HEADER: Final = re.compile(rf"[ \t]*\[[ \t]*({_KEY})[ \t]*\.[ \t]*({_KEY})[ \t]*\][ \t]*(?:#.*)?")
_ASSIGNMENT: Final = re.compile(rf"([ \t]*({_KEY})[ \t]*=[ \t]*)(.*)", re.DOTALL)
_SCALAR: Final = re.compile(
    r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[^\s"'#\[{]+)(?=[ \t]*(?:#.*)?\r?\n?\Z)"""
)
_PIECE: Final = re.compile(r'\'\'\'|"""|"(?:[^"\\]|\\.)*"|\'[^\']*\'|#.*|[\[\]{}]|.', re.DOTALL)
_ENDS: Final = {
    '"""': re.compile(r'(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}', re.DOTALL),
    "'''": re.compile(r"(?:[^']|'{1,2}(?!'))*'{3,5}", re.DOTALL),
}


@dataclass(frozen=True, slots=True)
class Statement:
    """A header or an assignment: its lines, of which it is the first, and how many it has."""

    first: int
    count: int
    text: str


def with_server(text: str, name: str, fields: Mapping[str, Value]) -> str:
    """The text with these fields in ``[servers.NAME]``, a new table at its end if need be.

    Raises SettingsError.
    """
    wanted = _expected(text, name, fields)
    new = text
    if wanted is not None:
        new = "".join(_edited(_lines(text), name, fields, "\r\n" if "\r\n" in text else "\n"))
    if wanted is None or _parsed(new) != wanted or not _is_writable(new):
        raise _refusal(name, "; ".join(shown(fields)))
    return new


def renamed(text: str, name: str, old: str, new: str) -> str:
    """The text with a field of ``[servers.NAME]`` under another name, where it stands.

    Raises SettingsError, also where there is no such field, or one of the new name already.
    """
    lines, wanted = _lines(text), _expected(text, name, {})
    for one in _table(lines, name):
        found = _ASSIGNMENT.fullmatch(one.text)
        if found is not None and _plain(found[2]) == old:
            line = lines[one.first]
            lines[one.first] = line[: found.start(2)] + new + line[found.end(2) :]
    after = "".join(lines)
    server = {} if wanted is None else wanted["servers"][name]
    if new not in server and old in server:
        server[new] = server.pop(old)
        if _parsed(after) == wanted:
            return after
    raise _refusal(name, f"{new} in place of {old}")


def _refusal(name: str, words: str) -> SettingsError:
    return SettingsError(
        f"[servers.{name}] can't be written into kluis.toml",
        "it stands there in a form that only its author should change",
        f"write it yourself: {words}",
    )


def shown(fields: Mapping[str, Value]) -> tuple[str, ...]:
    """Each field as a line of TOML."""
    return tuple(f"{field} = {_toml(value)}" for field, value in fields.items())


def _expected(text: str, name: str, fields: Mapping[str, Value]) -> dict[str, Any] | None:
    """What the new text must say; None when the old one says nothing that can be added to."""
    tables = _parsed(text)
    servers = None if tables is None else tables.setdefault("servers", {})
    server = servers.setdefault(name, {}) if isinstance(servers, dict) else None
    if not isinstance(server, dict):
        return None
    for field, value in fields.items():
        server[field] = list(value) if isinstance(value, tuple) else value
    return tables


def _edited(
    lines: Sequence[str], name: str, fields: Mapping[str, Value], end: str
) -> Sequence[str]:
    of_table = _table(lines, name)
    if not of_table:
        return _appended(lines, name, fields, end)
    new, last = list(lines), of_table[-1]
    missing = [field for field in fields if not _replace(new, of_table[1:], field, fields[field])]
    after = last.first + last.count
    if missing and not new[after - 1].endswith("\n"):
        new[after - 1] += end
    indent = last.text[: len(last.text) - len(last.text.lstrip(" \t"))]
    added = shown({field: fields[field] for field in missing})
    new[after:after] = [indent + line + end for line in added]
    return new


def _table(lines: Sequence[str], name: str) -> Sequence[Statement]:
    """The header of ``[servers.NAME]`` and what follows it; empty where there is none."""
    found: list[Statement] = []
    for one in _statements(lines):
        if found and one.text.lstrip(" \t").startswith("["):
            break
        if found or _is_header(one, name):
            found.append(one)
    return found


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)  # splitlines() knows more ends of lines than TOML


def _appended(
    lines: Sequence[str], name: str, fields: Mapping[str, Value], end: str
) -> Sequence[str]:
    text = [*lines]
    if text and not text[-1].endswith("\n"):
        text[-1] += end
    gap = [end] if text and text[-1].strip() else []
    return [*text, *gap, f"[servers.{name}]{end}", *(line + end for line in shown(fields))]


def _replace(lines: list[str], statements: Sequence[Statement], field: str, value: Value) -> bool:
    """Whether a field is there; if it can be done, it has another value then. The rest stays."""
    for one in statements:
        found = _ASSIGNMENT.fullmatch(one.text)
        if found is None or _plain(found[2]) != field:
            continue
        if one.count == 1 and (old := _SCALAR.match(found[3])) is not None:
            lines[one.first] = found[1] + _toml(value) + found[3][old.end() :]
        return True
    return False


def _is_header(one: Statement, name: str) -> bool:
    found = _HEADER.fullmatch(one.text.rstrip("\r\n"))
    return found is not None and [_plain(found[1]), _plain(found[2])] == ["servers", name]


def _plain(key: str) -> str:
    return key.strip("\"'")


def _statements(lines: Sequence[str]) -> Iterator[Statement]:
    """The headers and assignments; a string or an array of several lines belongs to one."""
    first = 0
    while first < len(lines):
        count = _length(lines, first)
        text = "".join(lines[first : first + count])
        if text.strip() and not text.lstrip().startswith("#"):
            yield Statement(first, count, text)
        first += count


def _length(lines: Sequence[str], first: int) -> int:
    """How many lines the statement has that begins in line ``first``."""
    depth, inside, at = 0, "", first
    while at < len(lines) and (at == first or depth > 0 or inside):
        depth, inside = _after(lines[at].rstrip("\r\n"), depth, inside)
        at += 1
    return at - first


def _after(line: str, depth: int, inside: str) -> tuple[int, str]:
    """Open brackets, and the quotes of an open string of several lines, at the end of a line."""
    at = 0
    while at < len(line):
        if inside:
            end = _ENDS[inside].match(line, at)
            if end is None:
                return depth, inside
            at, inside = end.end(), ""
            continue
        found = _PIECE.match(line, at)
        piece = found[0] if found else line[at:]
        at += len(piece)
        if piece in _ENDS:
            inside = piece
        depth += (piece in ("[", "{")) - (piece in ("]", "}"))
    return depth, inside


def _toml(value: Value) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_writable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
