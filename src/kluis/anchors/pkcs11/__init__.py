"""The ``pkcs11`` anchor: a key in an HSM or a smart card."""
