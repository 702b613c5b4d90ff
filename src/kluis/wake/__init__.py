"""After a recovery: what waits for a server is woken, in order, once, and with a deadline."""
