"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# What an example may take says nothing on a machine that others use too.
settings.register_profile("kluis", deadline=None)
settings.load_profile("kluis")
