"""What the API answers when it says no: a ``Status`` object with a code and a reason."""

from __future__ import annotations

from tests.support.kubernetes.kinds import Kind, Object


class Refusal(Exception):
    """An answer of failure. ``more`` are further members of its ``metadata``."""

    def __init__(self, code: int, reason: str, message: str, **more: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.more = more

    def status(self) -> Object:
        """The object that says so."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": dict(self.more),
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }


def bad_request(message: str) -> Refusal:
    """400: what was asked can't be understood."""
    return Refusal(400, "BadRequest", message)


def unauthorized() -> Refusal:
    """401: no token, or one that is not known."""
    return Refusal(401, "Unauthorized", "Unauthorized")


def not_found(kind: Kind, name: str) -> Refusal:
    """404: no such object."""
    return Refusal(404, "NotFound", f'{kind.key} "{name}" not found')


def no_such_path() -> Refusal:
    """404: no such resource type."""
    return Refusal(404, "NotFound", "the server could not find the requested resource")


def exists(kind: Kind, name: str) -> Refusal:
    """409: a create of what is there."""
    return Refusal(409, "AlreadyExists", f'{kind.key} "{name}" already exists')


def conflict(kind: Kind, name: str, why: str = "") -> Refusal:
    """409: a write based on another version than the present one."""
    why = why or (
        "the object has been modified; please apply your changes to the latest version and try"
        " again"
    )
    return Refusal(409, "Conflict", f'Operation cannot be fulfilled on {kind.key} "{name}": {why}')


def expired(message: str, **more: str) -> Refusal:
    """410: a version that is no longer kept."""
    return Refusal(410, "Expired", message, **more)


def invalid(kind: Kind, name: str, why: str) -> Refusal:
    """422: it can be understood, and is against the rules of its kind."""
    return Refusal(422, "Invalid", f'{kind.kind} "{name}" is invalid: {why}')
