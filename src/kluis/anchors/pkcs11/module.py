"""One PKCS#11 library in this process: loaded once, asked by one thread at a time.

A library is state of the whole process. Who ends it ends it for everybody, and a login counts for
every thread, so each library has one lock. A call that hangs keeps it; whoever waits gives up at
its own deadline. What crashes inside a library ends the process: nothing here can prevent that.

Three functions are called here by ctypes: python-pkcs11 holds the interpreter's lock in
C_Finalize, where one that hangs would stop every thread, and has no C_CloseAllSessions. Their
places in CK_FUNCTION_LIST are those of PKCS#11 2.40, header pkcs11f.h.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pkcs11

from kluis.anchors.pkcs11.faults import told
from kluis.errors import Misconfigured, Unreachable

if TYPE_CHECKING:
    from pkcs11._pkcs11 import lib as Loaded  # noqa: N812

RESTART_REST_S: Final = 0.4
"""Least time between two new starts of a library: some take a while, and ask their device."""

_INITIALIZE: Final = 0
_FINALIZE: Final = 1
_CLOSE_ALL_SESSIONS: Final = 14
_FUNCTIONS: Final = 68


class _FunctionList(ctypes.Structure):
    """CK_FUNCTION_LIST: the version, then the functions' addresses in their fixed order."""

    _fields_ = (("version", ctypes.c_ubyte * 2), ("functions", ctypes.c_void_p * _FUNCTIONS))


_Call = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong)


class Library:
    """A PKCS#11 library. Everything but ``held`` is for whoever holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._functions: ctypes.Array[ctypes.c_void_p] = (ctypes.c_void_p * _FUNCTIONS)()
        self._lib: Loaded | None = None
        self._may_restart_s = 0.0  # of time.monotonic()
        self._suspect = False

    @contextmanager
    def held(self, wait_s: float) -> Iterator[None]:
        """The library for one thread alone. Raises Unreachable after ``wait_s`` in the queue."""
        if not self._lock.acquire(timeout=wait_s):
            raise Unreachable(
                f"an earlier call of {self.path.name} has not ended yet",
                "one can ask it at a time, and what it talks to is slow or hangs",
                "check the token, its reader or connector; if that stays so, restart kluis",
            )
        try:
            yield
        finally:
            self._lock.release()

    def slots(self) -> list[pkcs11.Slot]:
        """The slots as they are now. Raises Misconfigured, Unreachable, PKCS11Error."""
        return self._loaded().get_slots()

    def description(self) -> str:
        """What the library calls itself, and its version."""
        loaded = self._loaded()
        major, minor = loaded.library_version
        return f"{loaded.library_description} {major}.{minor}".strip()

    def suspect(self) -> None:
        """Have it started anew before it is asked again."""
        self._suspect = True

    @property
    def is_suspect(self) -> bool:
        """Whether something went wrong that a new start may mend."""
        return self._suspect

    def restart(self) -> bool:
        """Start the library anew: its slots are read again, all its sessions end.

        False when the last start is less than ``RESTART_REST_S`` ago, and nothing was done.
        """
        if self._lib is None or time.monotonic() < self._may_restart_s:
            return False  # one that never started is started by the next call
        self._call(_FINALIZE)
        self._call(_INITIALIZE)  # whatever this answers, the next call of the library says as well
        self._may_restart_s = time.monotonic() + RESTART_REST_S
        self._suspect = False
        return True

    def close_sessions(self, slot: int) -> None:
        """Close all sessions with the slot's token, which logs out as well."""
        self._call(_CLOSE_ALL_SESSIONS, slot)

    def _loaded(self) -> Loaded:
        if self._lib is None:
            self._functions = _functions(self.path)
            try:
                self._lib = pkcs11.lib(str(self.path))
            except pkcs11.PKCS11Error as error:
                raise told(error, f"the start of {self.path.name}") from None
            # never dropped: python-pkcs11 would call C_Finalize at the end of the process, which
            # would then wait for a call that hangs
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._lib))
        return self._lib

    def _call(self, function: int, argument: int = 0) -> int:
        return int(_Call(self._functions[function] or 0)(argument))


def _functions(path: Path) -> ctypes.Array[ctypes.c_void_p]:
    """The addresses of a library's functions; it is not started by this."""
    try:
        path.stat()
    except OSError as error:
        raise Misconfigured(
            f"{path} can't be read: {error.strerror}",
            "the PKCS#11 module is not installed, or lies elsewhere",
            "install the token's package, or correct module",
        ) from None
    table = ctypes.POINTER(_FunctionList)()
    try:
        answer = ctypes.CDLL(str(path)).C_GetFunctionList(ctypes.byref(table))
    except (OSError, AttributeError):
        raise _no_module(path) from None
    if answer != 0 or ctypes.cast(table, ctypes.c_void_p).value is None:
        raise _no_module(path)
    functions: ctypes.Array[ctypes.c_void_p] = table.contents.functions
    return functions


def _no_module(path: Path) -> Misconfigured:
    return Misconfigured(
        f"{path} can't be loaded as a PKCS#11 module",
        "it is another kind of file, or built for another machine, or lacks a library it needs",
        "name the module of the token's vendor",
    )


_libraries: Final[dict[str, Library]] = {}
_libraries_lock: Final = threading.Lock()


def library_at(path: Path) -> Library:
    """The library of a file: one for all anchors that name it, by whichever link."""
    real = os.path.realpath(path)
    with _libraries_lock:
        return _libraries.setdefault(real, Library(Path(real)))
