"""A real web server that notes what it is told, and answers as the test says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.support.tls import Issued


@dataclass
class Listening:
    """``answers`` are its statuses, the last one for good; 0 is never to answer."""

    answers: Sequence[int]
    url: str = ""
    heard: list[tuple[dict[str, str], str]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    async def answer(self, request: web.Request) -> web.Response:
        told = {"method": request.method, "path": request.path}
        told["authorization"] = request.headers.get("Authorization", "")
        self.heard.append((told, (await request.read()).decode()))
        status = self.answers[min(len(self.heard), len(self.answers)) - 1]
        if status == 0:
            await asyncio.sleep(60)
        return web.Response(status=status, headers=self.headers)


@asynccontextmanager
async def listening(
    *answers: int, tls: Issued | None = None, port: int = 0
) -> AsyncIterator[Listening]:
    """A server on loopback; with ``tls`` it has that certificate."""
    heard = Listening(answers or (204,))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", heard.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=context)
    await site.start()
    bound = runner.addresses[0][1]
    heard.url = f"http{'s' if tls else ''}://127.0.0.1:{bound}/hooks/s3cret-path"
    try:
        yield heard
    finally:
        await runner.cleanup()
