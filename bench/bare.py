"""Hand-made clients of the anchors' counterparts: the least that must be done to open a leaf.

Each is for one leaf. All that does not change is made ready before, and nothing is proven: no
deadline, no mode of a file, no name of a key, no tag of the answer. What a server is asked goes
over a connection of its own, as an anchor is asked so rarely that no server would keep one.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

os.environ["TSS2_LOG"] = "all+none"

import pkcs11
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pkcs11.constants import Attribute
from pkcs11.mechanisms import GCMParams, Mechanism
from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMA_OBJECT,
    TCTILdr,
)

from bench.processes import BenchFailed

Call = Callable[[], bytes]
Sealed = Mapping[str, Any]
Options = Mapping[str, Any]

NONCE_BYTES: Final = 12
SECRET_BYTES: Final = 32
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


def static(options: Options, sealed: Sealed, context: bytes) -> Call:
    """Read the key, derive one, open the box."""
    path = Path(options["file"])
    salt, box = _bytes(sealed["salt"]), _bytes(sealed["box"])

    def call() -> bytes:
        key = HKDF(SHA256(), 32, salt, b"kluis anchor/1 static").derive(path.read_bytes())
        return _opened(key, box, context)

    return call


def passphrase(options: Options, sealed: Sealed, context: bytes) -> Call:
    """Read the passphrase, stretch it, open the box."""
    path = Path(options["file"])
    salt, box = _bytes(sealed["salt"]), _bytes(sealed["box"])
    memory_kib, iterations, lanes = (sealed[n] for n in ("memory_kib", "iterations", "lanes"))

    def call() -> bytes:
        kdf = Argon2id(
            salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory_kib
        )
        return _opened(kdf.derive(path.read_bytes()), box, context)

    return call


def tpm2(options: Options, sealed: Sealed, _context: bytes) -> Call:
    """Make the storage key, load, unseal, flush; in the open, by the password session."""
    way, _, where = options["device"].partition(":")
    private, _ = TPM2B_PRIVATE.unmarshal(_bytes(sealed["private"]))
    public, _ = TPM2B_PUBLIC.unmarshal(_bytes(sealed["public"]))

    def call() -> bytes:
        with TCTILdr(way, where) as tcti, ESAPI(tcti) as esapi:
            key, *_ = esapi.create_primary(TPM2B_SENSITIVE_CREATE(), _STORAGE_KEY, ESYS_TR.OWNER)
            loaded = esapi.load(key, private, public)
            data = bytes(esapi.unseal(loaded))
            esapi.flush_context(loaded)
            esapi.flush_context(key)
        return data[:SECRET_BYTES]

    return call


def token(options: Options, sealed: Sealed, context: bytes) -> Call:
    """Open a session, log in, find the key, decrypt, close; the library and the token are kept."""
    copy = Path(options["pin_file"]).with_name("bare.so")  # a state of its own: another program's
    kept = pkcs11.lib(str(shutil.copy(options["module"], copy)))
    found = kept.get_token(token_label=options["token"])
    pin = Path(options["pin_file"]).read_text()
    box = _bytes(sealed["box"])
    bound = b"|".join((context, b"AES-GCM", _bytes(sealed["key"]).hex().encode()))
    parameters = GCMParams(box[:NONCE_BYTES], bound)

    def call() -> bytes:
        with found.open(user_pin=pin) as session:
            key: Any = next(iter(session.get_objects({Attribute.LABEL: options["key"]})))
            secret: bytes = key.decrypt(
                box[NONCE_BYTES:], mechanism=Mechanism.AES_GCM, mechanism_param=parameters
            )
            return secret

    return call


def awskms(options: Options, sealed: Sealed, context: bytes) -> Call:
    """One signed POST; credentials are kept, no client of AWS's is made."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    signer = SigV4Auth(Credentials(*(os.environ[n] for n in names)), "kms", options["region"])
    asked = {
        "KeyId": _bytes(sealed["key"]).decode(),
        "CiphertextBlob": sealed["ciphertext"],
        "EncryptionContext": {"kluis": context.decode()},
    }
    body = json.dumps(asked)
    headers = {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": "TrentService.Decrypt",
    }

    def call() -> bytes:
        request = AWSRequest("POST", options["endpoint"] + "/", dict(headers), body)
        signer.add_auth(request)
        answer = json.loads(_post(options["endpoint"], "/", body.encode(), dict(request.headers)))
        return _bytes(answer["Plaintext"])

    return call


def transit(options: Options, sealed: Sealed, context: bytes) -> Call:
    """One POST with the token, which is kept."""
    headers = {"X-Vault-Token": Path(options["auth"]["file"]).read_text()}
    asked = {
        "ciphertext": f"vault:v{sealed['version']}:{sealed['ciphertext']}",
        "associated_data": base64.b64encode(context).decode(),
    }
    body = json.dumps(asked).encode()
    path = f"/v1/transit/decrypt/{options['key']}"

    def call() -> bytes:
        answer = json.loads(_post(options["address"], path, body, headers))
        return _bytes(answer["data"]["plaintext"])

    return call


def tang(options: Options, sealed: Sealed, _context: bytes) -> Call:
    """One POST with a ready body; nothing is blinded, and nothing computed from the answer."""
    protected = _bytes(sealed["jwe"]).split(b".")[0]
    header = json.loads(base64.urlsafe_b64decode(protected + b"==="))
    body = json.dumps(header["epk"] | {"alg": "ECMR"}).encode()
    headers = {"Content-Type": "application/jwk+json"}
    return lambda: _post(options["url"], f"/rec/{header['kid']}", body, headers)


CALLS: Final[Mapping[str, Callable[[Options, Sealed, bytes], Call]]] = {
    "static": static,
    "passphrase": passphrase,
    "tpm2": tpm2,
    "pkcs11": token,
    "awskms": awskms,
    "transit": transit,
    "tang": tang,
}
"""By the kind of the anchor: what its table in kluis.toml says, the leaf and its context."""


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


def _opened(key: bytes, box: bytes, context: bytes) -> bytes:
    return AESGCM(key).decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], context)


def _post(address: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """What is answered with status 200. Raises BenchFailed."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise BenchFailed(f"{path.partition('?')[0]} is answered with {answer.status}")
    return content
