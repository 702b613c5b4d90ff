"""Reading ``kluis.toml``: where it is, what it says, and where in it a mistake stands."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from kluis.errors import KluisError, PolicyError, SettingsError
from kluis.keyring import policy
from kluis.locating import CONTROL, socket_path
from kluis.settings import mistakes
from kluis.settings.mistakes import Place
from kluis.settings.root import ClientSettings, Configuration
from kluis.store import files

MAX_CONFIGURATION_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ConfigurationFile:
    """A configuration and the file it came from; relative paths in it start at its folder."""

    path: Path
    text: str
    settings: Configuration

    def resolve(self, path: Path) -> Path:
        """A path of the configuration, absolute."""
        return self.path.parent / path

    def error(self, place: Place, error: KluisError) -> SettingsError:
        """The same error, said of a place in the file."""
        return SettingsError(
            f"{_where(self.path, self.text, place)}: {error.seen}", error.means, error.next_step
        )

    def state_folder(self) -> Path:
        """The folder of the first keyring's documents; the service's things lie there too."""
        for keyring in self.settings.keyrings.values():
            return self.resolve(keyring.store.path)
        raise SettingsError(
            f"{self.path.name} declares no keyring",
            "there is nothing to guard",
            "declare one: [keyrings.homelab]",
        )

    def audit_path(self) -> Path:
        """Where the audit log lies."""
        facade = self.settings.facade
        if facade is not None and facade.audit is not None:
            return self.resolve(facade.audit)
        return self.state_folder() / "audit.jsonl"

    def control_path(self) -> Path:
        """Where the control socket lies: as configured, else beside the first keyring."""
        given = self.settings.service.control
        return socket_path(self.resolve(given) if given else self.state_folder() / CONTROL)


def read(path: Path) -> ConfigurationFile:
    """The configuration in a file. Raises SettingsError with the path within it and the line."""
    return parse(path, _text(path))


def parse(path: Path, text: str) -> ConfigurationFile:
    """The configuration that a text says, if it stood at ``path``. Raises SettingsError."""
    tables = _tables(path, text)
    try:
        settings = Configuration.model_validate(tables)
    except ValidationError as error:
        raise _invalid(path, text, error) from None
    file = ConfigurationFile(path.absolute(), text, settings)
    _check_rules(file)
    _check_clients(file)
    _check_servers(file)
    return file


def write(old: ConfigurationFile, text: str) -> None:
    """Write another text in the place of ``old``; its mode and owner stay, and so do links to it.

    Raises SettingsError when the text is no configuration or somebody else changed the file in
    between, and WriteFailed; then the old file is whole.
    """
    parse(old.path, text)
    path = old.path.resolve()
    with files.alone_in(path.parent):
        if _text(path) != old.text:
            raise SettingsError(
                f"{old.path} was changed in between",
                "what was to be written was made for the text before that",
                "run the command again",
            )
        files.rewrite(path, text.encode("utf-8"))


def _tables(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of 5000 digits, 1000 brackets
        raise SettingsError(
            f"{path}: not TOML: {error}", "the file does not follow the format", "correct the line"
        ) from None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIGURATION_BYTES + 1)
        if len(data) > MAX_CONFIGURATION_BYTES:
            raise SettingsError(
                f"{path} is larger than 1 MiB", "that is no configuration", "check the path"
            )
        return data.decode("utf-8")
    except OSError as error:
        raise SettingsError(
            f"{path} can't be read: {error.strerror}",
            "the path is wrong, or the user kluis runs as may not read it",
            "name the file with --config FILE or $KLUIS_CONFIG",
        ) from None
    except UnicodeDecodeError:
        raise SettingsError(
            f"{path} is not text", "a configuration is TOML in UTF-8", "check the path"
        ) from None


def _invalid(path: Path, text: str, error: ValidationError) -> SettingsError:
    mistake = mistakes.first(error)
    more = error.error_count() - 1
    return SettingsError(
        f"{_where(path, text, mistake.place)}: {mistake.words}",
        "kluis reads no file that it does not fully understand",
        "correct it" + (f"; {more} more after this one" if more else ""),
    )


def _where(path: Path, text: str, place: Place) -> str:
    line = line_of(text, place)
    dotted = ".".join(map(str, place))
    return f"{path.name}{f' line {line}' if line else ''}, {dotted or 'the file'}"


def line_of(text: str, place: Place) -> int | None:
    """The line, counted from 1, of a place or of the nearest table around it."""
    wanted = [str(part) for part in place]
    table: list[str] = []
    best: tuple[int, int | None] = (0, None)
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\[?\s*([^\]#]+?)\s*\]", line):
            table = found = _parts(header[1])
        elif key := re.match(
            r"""\s*((?:[\w-]+|"[^"]*")(?:\s*\.\s*(?:[\w-]+|"[^"]*"))*)\s*=""", line
        ):
            found = [*table, *_parts(key[1])]
        else:
            continue
        if found == wanted[: len(found)] and len(found) > best[0]:
            best = (len(found), number)
    return best[1]


def _parts(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in dotted.split(".")]


def _check_rules(file: ConfigurationFile) -> None:
    for name, keyring in file.settings.keyrings.items():
        try:
            rule = policy.parse(keyring.opens)
            policy.check_known(keyring.opens, rule, file.settings.anchors)
        except PolicyError as error:
            raise file.error(("keyrings", name, "opens"), error) from None


def _check_clients(file: ConfigurationFile) -> None:
    for name, client in file.settings.clients.items():
        for key_path in client.keys:
            keyring, _, key = key_path.partition("/")
            known = file.settings.keyrings.get(keyring)
            declared = known.keys.get(key) if known else None
            if declared is None:
                raise file.error(
                    ("clients", name, "keys"),
                    KluisError(
                        f"there is no key {key_path}",
                        "a client may use keys that the file declares",
                        f"declare [keyrings.{keyring}.keys.{key}], or correct the name",
                    ),
                )
            if declared.kind != "transit":
                raise file.error(
                    ("clients", name, "keys"),
                    KluisError(
                        f"{key_path} is of kind {declared.kind}",
                        "clients use transit keys; a static seal is handed over by kluis run",
                        "name a transit key",
                    ),
                )
        _check_certificate(file, name, client)


def _check_certificate(file: ConfigurationFile, name: str, client: ClientSettings) -> None:
    facade = file.settings.facade
    if client.certificate_san is None or facade is None:
        return
    if facade.tls == "off" or facade.tls.client_ca is None:
        raise file.error(
            ("clients", name, "certificate_san"),
            KluisError(
                "the facade asks nobody for a certificate",
                "without facade.tls.client_ca this client could never get in",
                "add client_ca to facade.tls, or leave certificate_san out",
            ),
        )


def _check_servers(file: ConfigurationFile) -> None:
    for name, server in file.settings.servers.items():
        for field in ("unseal", "recovery"):
            path = getattr(server, field)
            if path is not None and path.partition("/")[0] not in file.settings.keyrings:
                raise file.error(
                    ("servers", name, field),
                    KluisError(
                        f"there is no keyring {path.partition('/')[0]}",
                        "shares are kept in a keyring that the file declares",
                        "correct the name",
                    ),
                )
        for hook in server.wake:
            if hook not in file.settings.wake:
                raise file.error(
                    ("servers", name, "wake"),
                    KluisError(
                        f"there is no hook {hook}",
                        "a server wakes what the file declares",
                        f"declare [wake.{hook}], or correct the name",
                    ),
                )
