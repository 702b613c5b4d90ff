"""kluis: an unseal-and-recovery plane for stock OpenBao and HashiCorp Vault servers."""

__version__ = "0.1.0"
