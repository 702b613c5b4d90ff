"""The ``tpm2`` anchor: the TPM of this machine."""
