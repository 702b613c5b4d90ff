"""The table of operations: every name leads to a function, and none is imported before its call."""

from __future__ import annotations

import inspect
import subprocess
import sys

from kluis.service import operations

LOOKED_UP = """
import sys
from kluis.service import operations
for name in ("status", "verify", "plan", "key-list"):
    operations.find(name)
late = {"aiohttp", "kluis.service.ceremony.steps", "kluis.service.migration.moving"}
print(*(late & set(sys.modules)))
"""


def test_every_operation_is_there() -> None:
    for name in operations.names():
        operation = operations.find(name)
        assert inspect.iscoroutinefunction(operation), name
        assert len(inspect.signature(operation).parameters) == 2, name
    assert operations.names() > operations.CHANGES
    assert operations.find("no-such") is None


def test_what_needs_no_server_imports_no_http_client() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOKED_UP], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == []
