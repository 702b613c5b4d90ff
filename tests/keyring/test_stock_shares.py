"""Shares of a stock OpenBao combine with our code to the key that it is sealed under."""

from __future__ import annotations

from itertools import combinations, islice
from pathlib import Path

from kluis.keyring import shamir
from tests.support.bao import Bao


def test_shares_of_a_stock_server_combine_and_unseal_it(tmp_path: Path) -> None:
    with Bao(tmp_path / "bao") as bao:
        raw = [bytes.fromhex(share) for share in bao.init(shares=5, threshold=3).shares]
        shares = {share[-1]: share[:-1] for share in raw}
        assert len(shares) == 5
        assert {len(y) for y in shares.values()} == {32}
        keys = {
            shamir.interpolate({x: shares[x] for x in chosen}) for chosen in combinations(shares, 3)
        }
        assert len(keys) == 1
        assert shamir.interpolate({x: shares[x] for x in list(shares)[:2]}) not in keys

        # shares that the server never saw, on the same polynomial: it takes them for its own
        chosen = {x: shares[x] for x in list(shares)[:3]}
        new_x = list(islice((x for x in range(1, 256) if x not in shares), 3))
        for x in new_x:
            y = shamir.interpolate(chosen, x)
            assert bao.unseal((y + bytes([x])).hex()).status == 200
        bao.wait_active()
