"""A key that is given once becomes a keyring of this machine, proven."""
