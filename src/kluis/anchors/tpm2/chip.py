"""The way to a TPM: one connection at a time to each, never waited for beyond a deadline.

A call to a TPM can't be broken off. So whoever comes while one hangs gives up by its own deadline,
without having sent anything: nothing of it happens late.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from tpm2_pytss import ESAPI, TCTILdr, TSS2_Exception

from kluis.anchors.tpm2.codes import explained, is_momentary, node_error
from kluis.anchors.tpm2.talk import Talk
from kluis.errors import AnchorError, Misconfigured, Unreachable

WAYS: Final = ("device", "mssim", "swtpm", "tabrmd")
"""The transports that may be named: of others, some run a program or load a library."""

_BUSY_S: Final = 2.0  # for so long a busy TPM is asked again
_PAUSE_S: Final = 0.05
_QUEUE_SHARE: Final = 0.9  # of the deadline: the rest is for saying what it waited for

T = TypeVar("T")

# The libraries print their errors, and at some levels what they send, to standard error.
os.environ["TSS2_LOG"] = "all+none"

_locks: Final[dict[str, threading.Lock]] = {}


class Chip:
    """A TPM, by its TCTI string. Its calls block: see Threads."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._way, _, self._where = device.partition(":")
        self._lock = _locks.setdefault(device, threading.Lock())

    def ask(self, work: Callable[[Talk], T], until: float) -> T:
        """What ``work`` gives over a connection of its own. Raises AnchorError.

        ``work`` is done again from its beginning while the TPM is busy. ``until`` is the deadline
        on the monotonic clock: nothing is begun after it.
        """
        self._refuse_unknown_way()
        with self._alone(max(0.0, until - time.monotonic()) * _QUEUE_SHARE):
            left_s = until - time.monotonic()
            return self._patiently(work, min(_BUSY_S, left_s / 2))

    @contextmanager
    def _alone(self, wait_s: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=wait_s):
            raise Unreachable(
                f"earlier calls to the TPM at {self.device} did not end within {wait_s:.1f} s",
                "it hangs, or is very slow",
                "see whether it answers others: tpm2_getcap properties-variable",
            )
        try:
            yield
        finally:
            self._lock.release()

    def _patiently(self, work: Callable[[Talk], T], busy_s: float) -> T:
        last = time.monotonic() + busy_s
        while True:
            try:
                return self._once(work)
            except OSError as error:
                momentary = error.errno == errno.EBUSY
                told = node_error(self._where, error.errno or 0)
            except TSS2_Exception as error:
                momentary = is_momentary(int(error.rc))
                told = explained(int(error.rc), self.device)
            if not momentary or time.monotonic() > last:
                raise told from None
            time.sleep(_PAUSE_S)

    def _once(self, work: Callable[[Talk], T]) -> T:
        if self._way == "device":
            self._try_node()
        with TCTILdr(self._way, self._where or None) as tcti, ESAPI(tcti) as esapi:
            return work(Talk(esapi))

    def _try_node(self) -> None:
        """Raises OSError as the node does, for the library tells only that it failed."""
        if not stat.S_ISCHR(os.stat(self._where).st_mode):  # noqa: PTH116 - not every path is one
            raise _no_device(self._where)  # the library would write its commands into a file
        os.close(os.open(self._where, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))

    def _refuse_unknown_way(self) -> None:
        if self._way not in WAYS or "\0" in self.device:
            raise Misconfigured(
                f'device = "{self._way}:…" names no way to a TPM',
                f"these are known: {', '.join(WAYS)}",
                "device:/dev/tpmrm0, or swtpm:host=127.0.0.1,port=2321",
            )
        if self._way == "device" and not self._where:
            raise _no_device("nothing after the colon")


def _no_device(what: str) -> AnchorError:
    return Misconfigured(
        f"{what} is no device", "a TPM is a character device", "name it: device:/dev/tpmrm0"
    )
