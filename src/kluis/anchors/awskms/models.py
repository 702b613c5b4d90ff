"""What botocore reads of its own data to make a client of AWS KMS: loaded once, off the loop.

It is data and bound to no event loop, so it is kept for the life of the process.
"""

from __future__ import annotations

import gc
import gzip
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from botocore.loaders import JSONFileLoader, Loader

_MODELS: Final = (
    ("kms", "service-2"),
    ("kms", "endpoint-rule-set-1"),
    ("sts", "service-2"),  # for profiles that take on a role, and for web identity
    ("sts", "endpoint-rule-set-1"),
)
_DATA: Final = ("endpoints", "partitions", "sdk-default-configuration", "_retry")

_loading = threading.Lock()


def models() -> Loader:
    """Botocore's descriptions of its services. The first call takes 100 ms: make it in a thread."""
    with _loading:
        return _load()


@cache
def _load() -> Loader:
    loader = Loader(file_loader=_YieldingLoader())
    with _no_garbage_collection():
        for model in _MODELS:
            loader.load_service_model(*model)
        for data in _DATA:
            loader.load_data(data)
    return loader


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """So many new objects would set it off, and it stops all threads: 50 to 100 ms were seen."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


class _YieldingLoader(JSONFileLoader):  # type: ignore[misc]  # botocore ships no types
    """Parses a large file without stopping the other threads of this process.

    The parser is one call in C, which keeps Python's lock to its end: 50 ms for such a file. A
    hook written in Python gives the others their turn at every object.
    """

    def load_file(self, file_path: str) -> Any:
        plain, packed = Path(f"{file_path}.json"), Path(f"{file_path}.json.gz")
        if plain.is_file():
            text = plain.read_bytes()
        elif packed.is_file():
            text = gzip.decompress(packed.read_bytes())
        else:
            return None
        return json.loads(text, object_pairs_hook=_in_order)


def _in_order(pairs: list[tuple[str, object]]) -> OrderedDict[str, object]:
    return OrderedDict(pairs)


def is_known_region(region: str) -> bool:
    """Whether botocore knows a region of this name; of a new one it may not."""
    partitions = models().load_data("endpoints")["partitions"]
    return any(region in partition["regions"] for partition in partitions)
