"""A hook that tells somebody by HTTP: POST {"event": "recovered", "server": …, "at": …}.

Any answer of 2xx is success. Where nobody answers, or with 429 or 5xx, it is told again, with
growing pauses, until the deadline; so whoever listens may hear of one recovery more than once.
The URL's path may be a secret of its own, and is in no message.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from kluis.anchors import http
from kluis.anchors.sources import Source
from kluis.anchors.tls import tls_context
from kluis.anchors.transit.auth import read_text
from kluis.errors import AnchorError, Unreachable, WakeFailed
from kluis.wake.base import Recovered, Report

FIRST_PAUSE_S: Final = 0.5
LAST_PAUSE_S: Final = 15.0
TRIES: Final = 3  # so often at least, if each of them hangs


@dataclass(frozen=True, slots=True)
class Webhook:
    """POST to ``url``. ``bearer`` is where a token for it comes from; it is read each time.

    ``ca`` has the authorities to believe; None: the system's.
    """

    kind: ClassVar[str] = "webhook"

    name: str
    url: str
    bearer: Source | None = None
    ca: Path | None = None
    timeout_s: float = 10.0

    async def run(self, recovery: Recovered) -> Report:
        """See Hook. Raises WakeFailed and AnchorError."""
        failure: AnchorError | None = None
        try:
            async with asyncio.timeout(self.timeout_s):
                tls = await asyncio.to_thread(tls_context, self.ca, None, None)
                pause_s = FIRST_PAUSE_S
                while True:
                    try:
                        return await self._told(recovery, tls)
                    except Unreachable as error:
                        failure = error
                    await asyncio.sleep(max(pause_s, failure.retry_s))
                    pause_s = min(LAST_PAUSE_S, pause_s * 2)
        except TimeoutError:
            raise self._not_told(failure) from None

    async def _told(self, recovery: Recovered, tls: ssl.SSLContext | None) -> Report:
        told = {"event": "recovered", "server": recovery.server.name, "at": recovery.moment}
        try:
            async with asyncio.timeout(self.timeout_s / TRIES):
                answer = await http.call(
                    "POST",
                    self.url,
                    body=json.dumps(told).encode(),
                    headers=await self._headers(),
                    tls=tls,
                )
        except TimeoutError:
            raise Unreachable(
                f"{self._host} did not answer",
                "it hangs, or the way to it is cut",
                "check that it runs and answers in time",
            ) from None
        self._check(answer)
        return Report((f"told {self._host}",))

    async def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": "kluis"}
        if self.bearer is not None:
            headers["Authorization"] = f"Bearer {await asyncio.to_thread(read_text, self.bearer)}"
        return headers

    def _check(self, answer: http.Answer) -> None:
        if 200 <= answer.status < 300:
            return
        seen = f"{self._host} answered {answer.status}"
        if answer.status == 429 or answer.status >= 500:
            raise Unreachable(
                seen, "it can't take it at the moment", "see its log", answer.retry_after_s
            )
        raise WakeFailed(
            seen,
            "it wants another address, token or message; redirects are not followed",
            f"check url and bearer in [wake.{self.name}]",
        )

    def _not_told(self, failure: AnchorError | None) -> WakeFailed:
        if failure is None:
            failure = Unreachable(f"{self._host} did not answer", "", "check that it runs")
        return WakeFailed(
            f"{failure.seen}, for {self.timeout_s:g} s", failure.means, failure.next_step
        )

    @property
    def _host(self) -> str:
        return http.host(self.url)
