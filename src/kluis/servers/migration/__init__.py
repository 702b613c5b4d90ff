"""Servers on their way from one seal to another: what is seen, what follows, what is written."""
