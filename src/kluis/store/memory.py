"""Whether a folder is in memory (tmpfs, ramfs) or on something that lasts; statfs(2)."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

from kluis.errors import WriteFailed

TMPFS_MAGIC: Final = 0x01021994
RAMFS_MAGIC: Final = 0x858458F6
_STRUCT_BYTES: Final = 512  # struct statfs has 64 to 120 of them; its first member is the type


def on_memory(folder: Path) -> bool:
    """Whether what is written to a folder stays in memory. Pages of a tmpfs may be swapped.

    Raises WriteFailed where there is no such folder.
    """
    kind = ctypes.create_string_buffer(_STRUCT_BYTES)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(folder), kind) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise WriteFailed(
            f"{folder}: {reason}",
            "a file is to be written there",
            "make the folder, or mount it; or name another one",
        )
    return ctypes.c_uint32.from_buffer(kind).value in (TMPFS_MAGIC, RAMFS_MAGIC)
