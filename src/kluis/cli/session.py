"""Where a command's work is done: in the running service, or, without one, right here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kluis import locating
from kluis.errors import NotRunning
from kluis.service.asking import ask

if TYPE_CHECKING:
    from kluis.configuration import ConfigurationFile


class Session:
    """Calls operations for one command."""

    def __init__(self, config: Path | None, *, accept_rollback: bool = False) -> None:
        """Raises SettingsError."""
        self.path = locating.find(config)
        self._accept_rollback = accept_rollback

    @cached_property
    def file(self) -> ConfigurationFile:
        """The configuration, read when it is first needed. Raises SettingsError."""
        from kluis import configuration

        return configuration.read(self.path)

    @cached_property
    def _control(self) -> Path:
        return locating.control_socket(self.path) or self.file.control_path()

    def call(self, name: str, **args: Any) -> dict[str, Any]:
        """Run an operation. Raises KluisError."""
        try:
            return ask(self._control, name, args)
        except NotRunning:
            import asyncio

            return asyncio.run(self._here(name, args))

    def call_service(self, name: str, **args: Any) -> dict[str, Any]:
        """Run an operation that makes sense in the service only. Raises NotRunning."""
        return ask(self._control, name, args)

    async def _here(self, name: str, args: Mapping[str, Any]) -> dict[str, Any]:
        from kluis import compose
        from kluis.service import operations
        from kluis.service.harden import harden

        harden()  # the service says what was refused; here it would be noise
        house = compose.house(
            self.file, alone=name in operations.CHANGES, accept_rollback=self._accept_rollback
        )
        try:
            return await operations.call(house, name, args)
        finally:
            house.close()
