"""What the facade measures: how long servers wait for their unseal; when its certificate ends."""

from __future__ import annotations

import ssl
import threading
import time
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from kluis.engine.durations import Durations
from kluis.facade.tls import TlsFiles
from kluis.facade.waits import AGAIN_S, Waiter, Waits
from tests.support.facade import RunningFacade, serving
from tests.support.tls import Authority

WHO = Waiter("homelab", "bletchley", "bletchley")
OTHER = WHO._replace(client="other")
WAITED = 'kluis_held_seconds_count{keyring="homelab"}'


def test_a_wait_goes_on_over_all_requests_of_a_server_that_comes_again() -> None:
    waits = Waits()
    waits.begins(WHO, 100)
    waits.pauses(WHO, 150)
    waits.begins(WHO, 155)
    waits.pauses(WHO, 160)
    assert waits.ends(OTHER, 160) is None
    assert waits.ends(WHO, 160) == 60
    assert waits.ends(WHO, 160) is None


def test_a_server_that_went_away_is_not_waiting_all_the_time() -> None:
    waits = Waits()
    waits.begins(WHO, 100)
    waits.pauses(WHO, 150)
    assert waits.ends(WHO, 150 + AGAIN_S + 1) is None
    waits.begins(WHO, 100)
    waits.pauses(WHO, 150)
    waits.begins(WHO, 1000)
    waits.pauses(WHO, 1002)
    assert waits.ends(WHO, 1002) == 2


def test_servers_that_share_a_client_end_one_wait() -> None:
    waits = Waits()
    waits.begins(WHO, 100)
    waits.begins(WHO, 101)
    waits.pauses(WHO, 110)
    assert waits.ends(WHO, 110) == 10
    waits.pauses(WHO, 110)
    assert waits.ends(WHO, 110) is None


def test_buckets_add_up_and_a_label_is_there_before_anything_happened() -> None:
    durations = Durations("kluis_x_seconds", "Something", ["server"], (0.5, 2.0))
    durations.know([("a",), ("b",)])
    for took_s in (0.1, 0.5, 0.6, 9.0):
        durations.add(("a",), took_s)
    samples = {(s.name, *s.labels.values()): s.value for s in durations.family().samples}
    assert samples["kluis_x_seconds_bucket", "a", "0.5"] == 2
    assert samples["kluis_x_seconds_bucket", "a", "2.0"] == 3
    assert samples["kluis_x_seconds_bucket", "a", "+Inf"] == 4
    assert samples["kluis_x_seconds_count", "a"] == 4
    assert samples["kluis_x_seconds_sum", "a"] == 10.2
    assert samples["kluis_x_seconds_count", "b"] == 0
    durations.know([("b",)])
    assert {s.labels["server"] for s in durations.family().samples} == {"b"}


def test_a_held_unseal_is_counted_once_it_is_answered(tmp_path: Path) -> None:
    with serving(tmp_path) as facade:
        _, ciphertext = facade.real_wrap()
        token = facade.token("bletchley")
        facade.decrypt(ciphertext, token)
        assert facade.metrics()[WAITED] == 0
        facade.lock()
        held = threading.Thread(target=lambda: facade.decrypt(ciphertext, token))
        held.start()
        facade.wait_held(1)
        facade.open()
        held.join()
        assert facade.metrics()[WAITED] == 1
        facade.decrypt(ciphertext, token)
        assert facade.metrics()[WAITED] == 1


def test_the_days_of_the_certificate_and_of_its_chain_are_counted(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    issued = authority.issue("facade", "localhost", "127.0.0.1")
    with serving(tmp_path, tls=TlsFiles(issued.certificate, issued.key)) as facade:
        left_s = secure_metrics(facade, authority)["kluis_facade_certificate_expiry_seconds"]
        assert 0 < left_s <= 86_400
        assert facade.facade.certificate_ends_s is not None
        assert abs(facade.facade.certificate_ends_s - time.time() - left_s) < 60


def secure_metrics(facade: RunningFacade, authority: Authority) -> dict[str, float]:
    context = ssl.create_default_context(cafile=authority.certificate)
    text = facade.request("GET", "/metrics", tls=context).raw.decode()
    families = text_string_to_metric_families(text)
    return {sample.name: sample.value for family in families for sample in family.samples}
