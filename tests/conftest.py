"""Settings of all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# What an example may take says nothing on a machine that others use too.
# In CI the same examples each time: what is found at random is found, and kept, by people.
settings.register_profile("kluis", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("kluis")
