"""A PKCS#11 module that passes each call on to a real one, and plays the faults it is told to.

    faulty = Faulty(tmp_path / "faulty", hsm.module)
    faulty.play("C_Login", "PIN_LOCKED"); faulty.heal("C_Login")
    faulty.play("C_GetSlotList", "hang")

gcc compiles it once. No token in software locks its PIN, hangs or loses its reader.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

CODES: Final = {
    "ALREADY_LOGGED_IN": 0x100,
    "DEVICE_ERROR": 0x30,
    "DEVICE_REMOVED": 0x32,
    "ENCRYPTED_DATA_INVALID": 0x40,
    "FUNCTION_FAILED": 0x06,
    "GENERAL_ERROR": 0x05,
    "KEY_FUNCTION_NOT_PERMITTED": 0x68,
    "MECHANISM_INVALID": 0x70,
    "NOT_INITIALIZED": 0x190,
    "PIN_EXPIRED": 0xA3,
    "PIN_LEN_RANGE": 0xA2,
    "PIN_LOCKED": 0xA4,
    "PIN_NOT_INITIALIZED": 0x102,
    "SESSION_COUNT": 0xB1,
    "SESSION_HANDLE_INVALID": 0xB3,
    "TOKEN_NOT_PRESENT": 0xE0,
    "TOKEN_WRITE_PROTECTED": 0xE2,
    "USER_NOT_LOGGED_IN": 0x101,
}
COUNT_LOW: Final = 0x10000
FINAL_TRY: Final = 0x20000
LOCKED: Final = 0x40000

# The numbers are the functions' places in CK_FUNCTION_LIST, PKCS#11 2.40. Arguments are passed on
# as words: no function wrapped here has more than six. What it is told lies beside the module.
_SOURCE: Final = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long W;
typedef W (*Function)(W, W, W, W, W, W);
typedef struct { unsigned char version[2]; Function call[68]; } List;

static Function real[68];
static List list;
static char folder[400], path_of_real[512], parameters[512];

static int told(const char *name, char *words, int size) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  int file = open(path, O_RDONLY);
  if (file < 0) return 0;
  int length = read(file, words, size - 1);
  close(file);
  words[length > 0 ? length : 0] = 0;
  return length > 0;
}

static W fault(const char *name) {
  char path[512], words[64];
  W code;
  snprintf(path, sizeof path, "%s/%s.calls", folder, name);
  int file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
  write(file, "x", 1);
  close(file);
  while (told(name, words, sizeof words) && !strcmp(words, "hang")) usleep(5000);
  if (!told(name, words, sizeof words)) return 0;
  code = strtoul(words, 0, 0);
  snprintf(path, sizeof path, "%s/%s", folder, name);
  if (strstr(words, "once")) unlink(path);
  return code;
}

#define WRAP(name, place)                                   \
  static W name(W a, W b, W c, W d, W e, W f) {             \
    W code = fault(#name);                                  \
    return code ? code : real[place](a, b, c, d, e, f);     \
  }
WRAP(C_Finalize, 1)
WRAP(C_GetSlotList, 4)
WRAP(C_OpenSession, 12)
WRAP(C_CloseSession, 13)
WRAP(C_CloseAllSessions, 14)
WRAP(C_Login, 18)
WRAP(C_Logout, 19)
WRAP(C_FindObjectsInit, 26)
WRAP(C_EncryptInit, 29)
WRAP(C_DecryptInit, 33)
WRAP(C_Decrypt, 34)
WRAP(C_GenerateKey, 58)

/* CK_TOKEN_INFO.flags stand at byte 96 */
static W C_GetTokenInfo(W slot, W info, W c, W d, W e, W f) {
  char words[64];
  W code = fault("C_GetTokenInfo");
  if (!code) code = real[6](slot, info, c, d, e, f);
  if (!code && told("flags", words, sizeof words))
    *(W *)(info + 96) |= strtoul(words, 0, 0);
  return code;
}

static W C_Initialize(W arguments, W b, W c, W d, W e, W f) {
  W code = fault("C_Initialize");
  if (code) return code;
  static struct { void *mutexes[4]; W flags; const char *parameters; void *reserved; } nss =
      {{0}, 2, parameters, 0};
  if (told("parameters", parameters, sizeof parameters)) arguments = (W)&nss;
  return real[0](arguments, b, c, d, e, f);
}

W C_GetFunctionList(List **out) {
  List *theirs;
  Dl_info own;
  dladdr((void *)C_GetFunctionList, &own);
  snprintf(folder, sizeof folder, "%s", own.dli_fname);
  *strrchr(folder, '/') = 0;
  told("real", path_of_real, sizeof path_of_real);
  void *library = dlopen(path_of_real, RTLD_NOW | RTLD_LOCAL);
  if (!library) return 6;
  W (*get)(List **) = (W(*)(List **))dlsym(library, "C_GetFunctionList");
  if (get(&theirs)) return 6;
  memcpy(real, theirs->call, sizeof real);
  memcpy(&list, theirs, sizeof list);
  list.call[0] = C_Initialize;
  list.call[1] = C_Finalize;
  list.call[4] = C_GetSlotList;
  list.call[6] = C_GetTokenInfo;
  list.call[12] = C_OpenSession;
  list.call[13] = C_CloseSession;
  list.call[14] = C_CloseAllSessions;
  list.call[18] = C_Login;
  list.call[19] = C_Logout;
  list.call[26] = C_FindObjectsInit;
  list.call[29] = C_EncryptInit;
  list.call[33] = C_DecryptInit;
  list.call[34] = C_Decrypt;
  list.call[58] = C_GenerateKey;
  *out = &list;
  return 0;
}
"""


class Faulty:
    """A module in front of a real one; ``of`` names a function and what it does from now on."""

    def __init__(self, folder: Path, real: Path, parameters: str | None = None) -> None:
        folder.mkdir()
        self.folder = folder
        (folder / "real").write_text(str(real))
        if parameters is not None:
            (folder / "parameters").write_text(parameters)
        self.module = Path(shutil.copy(_compiled(), folder / "faulty.so"))

    def play(self, function: str, what: str, *, once: bool = False) -> None:
        """``hang``, or the name of a return code; until ``heal``, or one time."""
        words = what if what == "hang" else str(CODES[what])
        self._write(function, f"{words} once" if once else words)

    def heal(self, *functions: str) -> None:
        """Pass these calls on again; one that hangs goes on."""
        for function in functions:
            (self.folder / function).unlink(missing_ok=True)

    def flags(self, flags: int) -> None:
        """Set these flags of every token, beside its own."""
        self._write("flags", str(flags))

    def calls(self, function: str) -> int:
        """How often a function was called."""
        path = self.folder / f"{function}.calls"
        return path.stat().st_size if path.exists() else 0

    def _write(self, name: str, words: str) -> None:
        new = self.folder / f"{name}.new"
        new.write_text(words)
        new.rename(self.folder / name)  # the module never reads half of it


@cache
def _compiled() -> Path:
    """The module, compiled once for all of this process."""
    folder = Path(tempfile.mkdtemp(prefix="kluis-faulty-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    module, source = folder / "faulty.so", folder / "faulty.c"
    source.write_text(_SOURCE)
    compiler = shutil.which("gcc")
    assert compiler is not None, "gcc is missing; install it with: apt install gcc libc6-dev"
    flags = ("-shared", "-fPIC", "-w")
    subprocess.run([compiler, *flags, "-o", module, source], check=True, timeout=60)
    return module
