"""Where keyring documents rest."""
