"""What the return codes of PKCS#11 mean here. python-pkcs11 has a class for each of them."""

from __future__ import annotations

from typing import Final

import pkcs11

from kluis.errors import AnchorError, Misconfigured, Refused, Unreachable

GONE: Final[frozenset[type[pkcs11.PKCS11Error]]] = frozenset(
    {
        pkcs11.DeviceRemoved,
        pkcs11.NoSuchToken,
        pkcs11.SessionClosed,
        pkcs11.SessionHandleInvalid,
        pkcs11.SlotIDInvalid,
        pkcs11.TokenNotPresent,
        pkcs11.TokenNotRecognised,
    }
)
"""The token, or what the library knew of it, is not there any more."""

STALE: Final = GONE | {
    pkcs11.AnotherUserAlreadyLoggedIn,
    pkcs11.DeviceError,
    pkcs11.FunctionFailed,
    pkcs11.GeneralError,
    pkcs11.KeyHandleInvalid,
    pkcs11.ObjectHandleInvalid,
    pkcs11.OperationActive,
    pkcs11.PKCS11Error,  # the class itself: a code without one, such as "not initialised"
    pkcs11.UserAlreadyLoggedIn,
}
"""What a new start of the library may mend."""

WRONG_PIN: Final = frozenset({pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange})

_UNABLE: Final = frozenset(
    {
        pkcs11.ArgumentsBad,
        pkcs11.AttributeReadOnly,
        pkcs11.AttributeTypeInvalid,
        pkcs11.AttributeValueInvalid,
        pkcs11.FunctionNotSupported,
        pkcs11.KeySizeRange,
        pkcs11.KeyTypeInconsistent,
        pkcs11.MechanismInvalid,
        pkcs11.MechanismParamInvalid,
        pkcs11.TemplateIncomplete,
        pkcs11.TemplateInconsistent,
    }
)


def told(error: pkcs11.PKCS11Error, what: str) -> AnchorError:
    """The error for a person; ``what`` failed."""
    code = type(error)
    seen = f"{what} failed: {'an unnamed code' if code is pkcs11.PKCS11Error else code.__name__}"
    if code in GONE:
        return Unreachable(
            seen,
            "the token was taken out, or its reader or connector started anew",
            "put it back; kluis finds it again by itself",
        )
    if code in _UNABLE:
        return Misconfigured(
            seen,
            "the token can't do this with this key",
            "choose another mechanism, or make the key with the vendor's tool",
        )
    if code in {pkcs11.TokenWriteProtected, pkcs11.SessionReadOnly}:
        return Refused(seen, "the token is write-protected", "make the key where it can be written")
    if code is pkcs11.SessionCount:
        return Unreachable(
            seen, "other programs hold all of the token's sessions", "end one of them"
        )
    if code is pkcs11.UserNotLoggedIn:
        return Misconfigured(
            seen,
            "the key wants the PIN again for every use (CKA_ALWAYS_AUTHENTICATE)",
            "make a key without that",
        )
    return Unreachable(
        seen,
        "the token, its reader or connector, or the module's own configuration has a fault",
        "try the token with another tool, such as pkcs11-tool",
    )


def pin_told(error: pkcs11.PKCS11Error, what: str, source: str) -> AnchorError:
    """The error of a login with the PIN from ``source``."""
    code = type(error)
    if code in WRONG_PIN:
        return Refused(
            f"{what} refuses the PIN from {source}",
            "it is wrong; kluis does not try it again, for a token locks after a few tries",
            f"put the right PIN into {source}",
        )
    if code is pkcs11.PinLocked:
        return locked(what)
    if code is pkcs11.PinExpired:
        return Refused(
            f"the PIN of {what} has expired", "the token wants a new one", "set a new PIN by hand"
        )
    if code is pkcs11.UserPinNotInitialized:
        return Misconfigured(
            f"{what} has no PIN yet", "it was not set up to the end", "set its user PIN by hand"
        )
    return told(error, f"the login to {what}")


def locked(what: str) -> Refused:
    """The PIN is locked."""
    return Refused(
        f"the PIN of {what} is locked",
        "it was wrong too often",
        "unlock it with the security officer's PIN; pkcs11-tool --init-pin does that",
    )
