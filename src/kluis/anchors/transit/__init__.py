"""The ``transit`` anchor: a key of another OpenBao, Vault or kluis."""
