"""One double for all tests of a file; each test takes names of its own, or a double of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kluis.kubernetes.access import Access, Token
from tests.support.kubernetes import Kind, KubernetesDouble

WIDGETS = Kind("example.org", "v1", "widgets", "Widget")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesDouble]:
    with KubernetesDouble(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.define(WIDGETS)
        yield cluster


@pytest.fixture
def cluster(shared: KubernetesDouble) -> Iterator[KubernetesDouble]:
    """The shared one, without objects, faults and requests of earlier tests."""
    shared.reset()
    yield shared
    shared.reset()


def access(cluster: KubernetesDouble) -> Access:
    """The plain way to it."""
    assert cluster.authority is not None
    return Access(cluster.address, cluster.authority.certificate, Token(cluster.token))
