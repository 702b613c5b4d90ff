"""The keyring: policy, document, keys. Pure: no files, no network, no clock."""
