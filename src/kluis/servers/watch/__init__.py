"""Keeping servers unsealed: who is sealed, who gets shares, and when all is back."""
