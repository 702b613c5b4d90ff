"""Stock OpenBao and Vault servers: their API, how they get a seal, how they are kept running."""
