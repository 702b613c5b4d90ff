"""Keeping secrets out of swap, core dumps and debuggers, as far as the system allows it."""

from __future__ import annotations

import ctypes
import os
import resource
from typing import Final

_MCL_CURRENT: Final = 1
_MCL_FUTURE: Final = 2
_MCL_ONFAULT: Final = 4  # what is reserved and never touched takes no memory
_PR_SET_DUMPABLE: Final = 4


def harden() -> list[str]:
    """Lock the memory, forbid core dumps and tracing; what the system refused, in words."""
    refused: list[str] = []
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        refused.append("the process stays traceable: prctl was refused")
    if not _may_lock_all() or libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        refused.append(
            "memory is not locked and could reach swap: give CAP_IPC_LOCK or LimitMEMLOCK=infinity"
        )
    return refused


def _may_lock_all() -> bool:
    """With a finite limit a later allocation would fail: then rather none is locked."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return soft == resource.RLIM_INFINITY or os.geteuid() == 0
