"""The words that settings are made of. Nothing here touches what the settings name."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from kluis.addresses import endpoint
from kluis.keyring.policy import KEY_NAME_PATTERN, NAME_PATTERN

RESERVED = frozenset({"auth", "sys", "transit", "and", "or", "of"})


def _free(name: str) -> str:
    """The name itself, unless it means something in a rule or in the facade's paths."""
    if name in RESERVED:
        raise ValueError(f"the name {name!r} has a meaning of its own; take another")
    return name


def _reachable(url: str) -> str:
    """The URL itself, unless its host or port can't be."""
    endpoint(url)
    return url


def _several(value: object) -> object:
    """One address is a list of one."""
    if not isinstance(value, str | list | tuple):
        raise ValueError("write an address like https://bao.example:8200, or a list of them")
    return (value,) if isinstance(value, str) else value


AnchorName = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$"), AfterValidator(_free)]
ClientName = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
KeyName = Annotated[str, Field(pattern=f"^{KEY_NAME_PATTERN}$")]
KeyPath = Annotated[str, Field(pattern=f"^{NAME_PATTERN}/{KEY_NAME_PATTERN}$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Credential = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Domain = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$")]
MountPath = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*$", max_length=256)]
HttpUrl = Annotated[
    str,
    Field(
        pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+(?:/[A-Za-z0-9._~/-]*)?$",
        max_length=512,
    ),
    AfterValidator(_reachable),
]
Addresses = Annotated[tuple[HttpUrl, ...], BeforeValidator(_several), Field(max_length=64)]


class Settings(BaseModel):
    """Base of all settings: frozen, and a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
