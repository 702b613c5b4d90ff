"""A server is made, given new shares, or a root token: its own endpoints, driven safely."""
