"""A server is moved to another seal, and back."""
