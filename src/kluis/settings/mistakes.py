"""What pydantic found wrong in ``kluis.toml``, said to a person: where, and what is allowed there.

The schema of the settings tells what a location means. Where a table may be of several kinds, the
location names the kind too, which is no part of the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from kluis.settings.root import Configuration

Place = Sequence[str | int]
Schema = Mapping[str, Any]

_NAME: Final = "a name of up to 63 small letters, digits and -, a letter first"
_KEY_NAME: Final = "a name of up to 63 letters, digits, '.', _ and -, no sign at its ends"
_URL: Final = "a URL like https://vault.example:8200, without user and query"
_VARIABLE: Final = "the name of a variable, like HSM_PIN"
_CREDENTIAL: Final = "the name of a systemd credential: letters, digits, '.', _ and -"

FORMS: Final[Mapping[str, str]] = {
    "address": _URL,
    "addresses": _URL,
    "certificate_san": "up to 512 visible ASCII characters without spaces",
    "cluster_id": "the id that the server tells; kluis server add writes it",
    "credential": _CREDENTIAL,
    "domain": "up to 64 letters, digits, spaces, '.', _ and -, no sign first",
    "endpoint": _URL,
    "env": _VARIABLE,
    "key": _KEY_NAME,
    "keys": "a keyring and a key, like homelab/bletchley",
    "login_audience": "visible ASCII characters without spaces",
    "login_mount": "a path like kubernetes or team/kubernetes, without / at its ends",
    "login_role": "visible ASCII characters without spaces",
    "login_service_account": "a service account like NAMESPACE/NAME",
    "mount": "a path like transit or team/transit, without / at its ends",
    "namespace": "a path of letters, digits, '.', _ and -, like team/unit",
    "pin_credential": _CREDENTIAL,
    "pin_env": _VARIABLE,
    "recovery": "a keyring and a key, like homelab/main",
    "region": "a region like eu-central-1",
    "pin": "sha256: and 44 characters of base64; kluis server add writes it",
    "selector": "a label selector, like app.kubernetes.io/name=openbao",
    "server_name": "a name like vault.vault.svc",
    "stores": "the name of a ClusterSecretStore, or NAMESPACE/NAME of a SecretStore",
    "thumbprint": "the 43 characters of a SHA-256 thumbprint; kluis anchor show prints it",
    "unseal": "a keyring and a key, like homelab/old-vault",
    "url": _URL,
    "wake": _NAME,
    "workloads": "a workload like deployment/NAMESPACE/NAME",
    "anchors[key]": _NAME,
    "clients[key]": _NAME,
    "keyrings[key]": _NAME,
    "keys[key]": _KEY_NAME,
    "servers[key]": _NAME,
    "wake[key]": _NAME,
}
"""What a field, or the keys of a table, must look like that has a pattern."""

_TYPES: Final[Mapping[str, str]] = {
    "dict_type": "a table",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "an array, in [ ]",
    "model_attributes_type": "a table",
    "model_type": "a table",
    "path_type": "a path, in quotes",
    "string_type": "text, in quotes",
    "tuple_type": "an array, in [ ]",
}


@dataclass(frozen=True, slots=True)
class Mistake:
    """Where in the file, and in words that name no Python type."""

    place: Place
    words: str


def first(error: ValidationError) -> Mistake:
    """The first of the mistakes."""
    found = error.errors(include_url=False, include_input=False)[0]
    place, around, schema = _walk(found["loc"])
    match found["type"]:
        case "extra_forbidden":
            known = ", ".join(sorted(around.get("properties", {})))
            return Mistake(place, f"there is no such field; there are {known}")
        case "missing":
            return Mistake(place, "this field is missing")
        case "union_tag_not_found":
            return Mistake([*place, "kind"], f"this field is missing; {_kinds(schema)}")
        case "union_tag_invalid":
            wrong = str(found["ctx"]["tag"])[:40]
            return Mistake([*place, "kind"], f"{wrong!r} is no kind; {_kinds(schema)}")
        case "string_pattern_mismatch":
            return Mistake(place, f"it should be {FORMS[_field(found['loc'])]}")
        case _:
            return Mistake(place, _words(found))


def _words(found: ErrorDetails) -> str:
    if allowed := _TYPES.get(found["type"]):
        return f"it should be {allowed}"
    text = found["msg"].removeprefix("Value error, ")
    text = re.sub(r"^(Input|String|List|Tuple) should", "it should", text)
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def _field(location: Place) -> str:
    """The name that FORMS knows: of the field, or of the table whose key is wrong."""
    if location[-1] == "[key]":
        return f"{location[-3]}[key]"
    return [part for part in location if isinstance(part, str)][-1]


def _kinds(schema: Schema) -> str:
    kinds = sorted(schema["discriminator"]["mapping"])
    return f"it should be {', '.join(kinds[:-1])} or {kinds[-1]}"


def _walk(location: Place) -> tuple[Place, Schema, Schema]:
    """The place in the file, the schema of what is around it, and its own."""
    root: Schema = Configuration.model_json_schema()
    place: list[str | int] = []
    around: Schema = root
    here: Schema = root
    for part in location:
        if part == "[key]":
            continue
        branch = _branches(root, here).get(str(part))
        if branch is not None:
            here = branch
        else:
            around, here = here, _resolved(root, _child(here, part))
            place.append(part)
    return place, around, here


def _branches(root: Schema, schema: Schema) -> dict[str, Schema]:
    """The kinds of table that may stand in one place, by what pydantic calls them."""
    if "discriminator" in schema:
        mapping = schema["discriminator"]["mapping"]
        return {kind: _resolved(root, {"$ref": ref}) for kind, ref in mapping.items()}
    choices = [_resolved(root, choice) for choice in schema.get("anyOf", ())]
    return {choice["title"]: choice for choice in choices if "title" in choice}


def _child(schema: Schema, part: str | int) -> Schema:
    if isinstance(part, int):
        found = schema.get("items", {})
    elif "patternProperties" in schema:
        found = next(iter(schema["patternProperties"].values()))
    else:
        found = schema.get("properties", {}).get(part, {})
    return found if isinstance(found, dict) else {}


def _resolved(root: Schema, schema: Schema) -> Schema:
    """The schema itself: not a reference to it, nor a choice between it and nothing."""
    if "$ref" in schema:
        found: Schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
        return found
    choices = [choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
    return _resolved(root, choices[0]) if len(choices) == 1 else schema
