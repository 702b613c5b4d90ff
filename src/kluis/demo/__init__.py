"""The demonstration: a real stock OpenBao that always comes back, played before one's eyes."""
