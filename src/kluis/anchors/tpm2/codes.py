"""What a response code of a TPM, or of the libraries on the way to it, means for a person.

A code carries its origin in bits 16 to 23 (TSS 2.0 Overview and Common Structures, table 1): 0 is
the TPM, 11 and 12 a resource manager that speaks for it, 10 the transport (TCTI). A TPM's own code
may carry the number of the parameter, handle or session that it is about (TPM 2.0 Library, part 2,
6.6); ``code_of`` strips that.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

from tpm2_pytss import TPM2_RC, TSS2_RC

from kluis.errors import AnchorError, Misconfigured, Missing, Refused, Unreachable

_TPM_LAYERS: Final = (0, 11, 12)
_TCTI_LAYER: Final = 10
_FORMAT_ONE: Final = 0x080
_FORMAT_ONE_CODE: Final = 0x0BF
_CODE: Final = 0xFFF

AUTH_FAIL: Final = int(TPM2_RC.AUTH_FAIL)
BAD_AUTH: Final = int(TPM2_RC.BAD_AUTH)
LOCKOUT: Final = int(TPM2_RC.LOCKOUT)
POLICY_FAIL: Final = int(TPM2_RC.POLICY_FAIL)
PCR_CHANGED: Final = int(TPM2_RC.PCR_CHANGED)
HASH: Final = int(TPM2_RC.HASH)
HIERARCHY: Final = int(TPM2_RC.HIERARCHY)

_NO_ROOM: Final = frozenset(
    int(code)
    for code in (
        TPM2_RC.OBJECT_MEMORY,
        TPM2_RC.SESSION_MEMORY,
        TPM2_RC.MEMORY,
        TPM2_RC.SESSION_HANDLES,
        TPM2_RC.OBJECT_HANDLES,
    )
)
_BUSY: Final = frozenset(
    int(code)
    for code in (
        TPM2_RC.RETRY,
        TPM2_RC.YIELDED,
        TPM2_RC.TESTING,
        TPM2_RC.CANCELED,
        TPM2_RC.NV_RATE,
        TPM2_RC.NV_UNAVAILABLE,
    )
)
_NOT_STARTED: Final = frozenset((int(TPM2_RC.INITIALIZE), int(TPM2_RC.REBOOT)))
_BROKEN: Final = frozenset((int(TPM2_RC.FAILURE), int(TPM2_RC.UPGRADE)))
_AWAY: Final = frozenset(
    int(code)
    for code in (TSS2_RC.TCTI_RC_IO_ERROR, TSS2_RC.TCTI_RC_NO_CONNECTION, TSS2_RC.TCTI_RC_TRY_AGAIN)
)


def code_of(rc: int) -> int:
    """The TPM's code without what it is about; 0 when it is not the TPM that speaks."""
    if rc >> 16 not in _TPM_LAYERS:
        return 0
    return rc & (_FORMAT_ONE_CODE if rc & _FORMAT_ONE else _CODE)


def is_about_parameters(rc: int) -> bool:
    """Whether the TPM speaks of what it was given: a parameter, a handle or a session."""
    return rc >> 16 in _TPM_LAYERS and bool(rc & _FORMAT_ONE)


def is_momentary(rc: int) -> bool:
    """Whether the same may go well a moment later."""
    return code_of(rc) in _BUSY | _NO_ROOM


def explained(rc: int, device: str) -> AnchorError:
    """The error for a code that no step of the anchor knows better."""
    if rc >> 16 in _TPM_LAYERS:
        return _of_tpm(code_of(rc), rc)
    if rc >> 16 == _TCTI_LAYER:
        return _of_transport(rc, device)
    if rc == TSS2_RC.ESYS_RC_RSP_AUTH_FAILED:
        return Refused(
            "the TPM's answer does not prove that it comes from the TPM",
            "something between here and the TPM changes what crosses it, or the bus is faulty",
            "look at the board and at what device names; the leaf was not opened",
        )
    return not_a_tpm(device)


def no_storage_key(rc: int) -> Refused | None:
    """Why the storage key could not be made; None when the code says nothing special there."""
    code = code_of(rc)
    if code in (AUTH_FAIL, BAD_AUTH):
        return Refused(
            "the owner hierarchy of the TPM has a password",
            "kluis makes its storage key there, and knows no password for it",
            "remove it: tpm2_changeauth -c owner -p PASSWORD; or use another anchor",
        )
    if code == HIERARCHY:
        return Refused(
            "the owner hierarchy of the TPM is switched off",
            "the firmware did so at boot; kluis makes its storage key there",
            "switch the storage hierarchy on in the firmware's settings",
        )
    return None


def _of_tpm(code: int, rc: int) -> AnchorError:
    if code in _NO_ROOM:
        return Unreachable(
            f"the TPM has no room for another object or session (0x{code:x})",
            "programs left theirs behind, and no resource manager stands before this device",
            'set device = "device:/dev/tpmrm0", or clear it: tpm2_flushcontext -t -l -s',
        )
    if code in _BUSY:
        return Unreachable(
            f"the TPM is busy (0x{code:x})",
            "it tests itself, or spares its memory from wear",
            'wait; if it stays so, set device = "device:/dev/tpmrm0"',
        )
    if code in _NOT_STARTED:
        return Unreachable(
            f"the TPM was not started (0x{code:x})",
            "firmware or kernel starts it at boot; an emulator is started by whoever runs it",
            "tpm2_startup -c; for an emulator --flags startup-clear",
        )
    if code in _BROKEN:
        return Refused(
            f"the TPM does not work: failure mode, or an unfinished update (0x{code:x})",
            "it refuses all work until it is started anew",
            "switch the machine off and on; if it stays so the TPM is broken: replace its anchor",
        )
    return Misconfigured(
        f"the TPM answered 0x{rc:x}",
        "it can't do what kluis asks of every TPM 2.0, or the anchor met a case it does not know",
        "tpm2_rc_decode says what the number means; report this",
    )


def _of_transport(rc: int, device: str) -> AnchorError:
    if rc in _AWAY:
        return Unreachable(
            f"no TPM answers at {device}",
            "the emulator or resource manager does not run, or the driver fails",
            "start it; for a TPM of this machine see: dmesg | grep -i tpm",
        )
    if rc == TSS2_RC.TCTI_RC_BAD_VALUE:
        return Misconfigured(
            f'device = "{device}" can\'t be read',
            "what stands after the colon is not of the form that this way to a TPM has",
            "device:/dev/tpmrm0, or swtpm:host=127.0.0.1,port=2321",
        )
    if rc == TSS2_RC.TCTI_RC_NOT_SUPPORTED:
        way = device.partition(":")[0]
        return Misconfigured(
            f"the library for {way} is not installed",
            "each way to a TPM is a library of its own",
            f"apt install libtss2-tcti-{way}0",
        )
    return not_a_tpm(device)


def not_a_tpm(device: str) -> Misconfigured:
    """The error for what answers, though not as a TPM does."""
    return Misconfigured(
        f"what answers at {device} is no TPM 2.0",
        "another program listens there, or the device is another one",
        "see what the kernel found: ls -l /dev/tpm*",
    )


_NODE_ERRORS: Final[Mapping[int, type[AnchorError]]] = {
    errno.ENOENT: Missing,
    errno.ENODEV: Missing,
    errno.ENXIO: Missing,
    errno.ENOTDIR: Missing,
    errno.EACCES: Refused,
    errno.EPERM: Refused,
    errno.EBUSY: Unreachable,
}


def node_error(path: str, number: int) -> AnchorError:
    """The error for a device node that could not be opened, by its errno."""
    kind = _NODE_ERRORS.get(number, Unreachable)
    if kind is Missing:
        return Missing(
            f"there is no TPM at {path}",
            "it is switched off in the firmware, its driver is missing, or the machine has none",
            "switch it on (TPM, PTT or fTPM), then see: dmesg | grep -i tpm",
        )
    if kind is Refused:
        return Refused(
            f"{path} may not be opened",
            "the user kluis runs as is not in the group that owns the TPM",
            "usermod -aG tss USER, or SupplementaryGroups=tss in the unit; then start kluis anew",
        )
    if number == errno.EBUSY:
        return Unreachable(
            f"another program holds {path}",
            "only one at a time may use it; a resource manager lets many",
            'set device = "device:/dev/tpmrm0"',
        )
    return Unreachable(
        f"{path} can't be opened: {errno.errorcode.get(number, number)}",
        "the driver of the TPM fails",
        "see: dmesg | grep -i tpm",
    )
