"""What is loaded into a TPM for a moment, and is out of it again, also when a command fails.

The storage key is made anew each time: an ECC P-256 key of the owner hierarchy with the template of
a storage root key, which a TPM derives from its seed, always the same until it is cleared. No saved
context is used, which would die with a reset.

Sessions are salted to the storage key, and encrypt the first parameter both ways (AES-128-CFB; TPM
2.0 Library, part 1, 19 and 21).
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_CC,
    TPM2_SE,
    TPM2_ST,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMA_OBJECT,
    TPMA_SESSION,
    TPMT_SYM_DEF,
    TPMU_SYM_KEY_BITS,
    TPMU_SYM_MODE,
    TSS2_Exception,
)

from kluis.anchors.tpm2.codes import is_about_parameters, no_storage_key
from kluis.anchors.tpm2.leaf import Leaf
from kluis.errors import Damaged

_STORAGE_KEY: Final = TPM2B_PUBLIC.parse(
    "ecc256:aes128cfb",
    objectAttributes=TPMA_OBJECT.FIXEDTPM
    | TPMA_OBJECT.FIXEDPARENT
    | TPMA_OBJECT.SENSITIVEDATAORIGIN
    | TPMA_OBJECT.USERWITHAUTH
    | TPMA_OBJECT.NODA
    | TPMA_OBJECT.RESTRICTED
    | TPMA_OBJECT.DECRYPT,
    nameAlg="sha256",
)
_AES_128_CFB: Final = TPMT_SYM_DEF(
    algorithm=TPM2_ALG.AES,
    keyBits=TPMU_SYM_KEY_BITS(sym=128),
    mode=TPMU_SYM_MODE(sym=TPM2_ALG.CFB),
)
_ENCRYPTED_BOTH_WAYS: Final = (
    TPMA_SESSION.CONTINUESESSION | TPMA_SESSION.DECRYPT | TPMA_SESSION.ENCRYPT
)


class Loader:
    """Loads and flushes over one connection. Raises AnchorError, or TSS2_Exception for the rest."""

    def __init__(self, esapi: ESAPI) -> None:
        self._esapi = esapi

    @contextmanager
    def storage_key(self) -> Iterator[tuple[ESYS_TR, bytes]]:
        """The storage key, and its name. Raises Refused when it can't be made."""
        try:
            key, public, *_ = self._esapi.create_primary(
                TPM2B_SENSITIVE_CREATE(), _STORAGE_KEY, ESYS_TR.OWNER
            )
        except TSS2_Exception as error:
            raise no_storage_key(int(error.rc)) or error from None
        with self._flushed(key):
            yield key, bytes(public.get_name())

    @contextmanager
    def sealed_object(self, key: ESYS_TR, leaf: Leaf) -> Iterator[ESYS_TR]:
        """The object of a leaf, under the storage key. Raises Damaged."""
        private, _ = TPM2B_PRIVATE.unmarshal(leaf.private)
        public, _ = TPM2B_PUBLIC.unmarshal(leaf.public)
        try:
            loaded = self._esapi.load(key, private, public)
        except TSS2_Exception as error:
            raise _damaged() if is_about_parameters(error.rc) else error from None
        with self._flushed(loaded):
            yield loaded

    @contextmanager
    def session(self, key: ESYS_TR, kind: TPM2_SE) -> Iterator[ESYS_TR]:
        """A session that only the TPM with this storage key can take part in."""
        session = self._esapi.start_auth_session(
            key, ESYS_TR.NONE, kind, _AES_128_CFB, TPM2_ALG.SHA256
        )
        with self._flushed(session):
            self._esapi.trsess_set_attributes(session, _ENCRYPTED_BOTH_WAYS)
            yield session

    @contextmanager
    def _flushed(self, handle: ESYS_TR) -> Iterator[None]:
        number = int(self._esapi.tr_get_tpm_handle(handle))
        try:
            yield
        finally:
            with contextlib.suppress(TSS2_Exception):  # the TPM went away, and all with it
                self._flush(handle, number)

    def _flush(self, handle: ESYS_TR, number: int) -> None:
        try:
            self._esapi.flush_context(handle)
        except TSS2_Exception:
            # after an answer that did not verify, the library itself does no more over this
            # connection: TPM2_FlushContext in its bytes
            tcti = self._esapi.tcti
            tcti.transmit(
                struct.pack(">HIII", TPM2_ST.NO_SESSIONS, 14, TPM2_CC.FlushContext, number)
            )
            tcti.receive()


def _damaged() -> Damaged:
    return Damaged(
        "the TPM does not take the sealed object",
        "its bytes were damaged; the TPM itself is the one it was sealed by",
        "once the keyring is open by another way, kluis heal seals it anew",
    )
