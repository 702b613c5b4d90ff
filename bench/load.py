"""The load generator: Debian's wrk, the same for kluis and for OpenBao."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import ssl
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.openbao import Access
from bench.processes import BenchFailed, clean_environment

CONNECTIONS: Final = 32
_SCRIPT: Final = Path(__file__).with_name("load.lua")


@dataclass(frozen=True)
class Load:
    """What wrk saw. Every request was answered with 200."""

    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Call:
    """One request of a Transit API, to be repeated."""

    access: Access
    operation: str
    body: str

    @property
    def url(self) -> str:
        """Where it goes."""
        access = self.access
        return f"{access.address}/v1/{access.mount}/{self.operation}/{access.key}"

    def once(self) -> dict[str, str]:
        """Send it once; the data of the answer."""
        request = urllib.request.Request(
            self.url,
            self.body.encode(),
            {"X-Vault-Token": self.access.token, "Content-Type": "application/json"},
            method="PUT",
        )
        ca = self.access.ca_file
        context = ssl.create_default_context(cafile=ca) if ca else None
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            data: dict[str, str] = json.load(answer)["data"]
        return data


def root_key_wrap() -> str:
    """What a server gives its seal to wrap: a JSON array with a root key; in base64."""
    root_key = base64.b64encode(secrets.token_bytes(32)).decode()
    return base64.b64encode(json.dumps([root_key]).encode()).decode()


def encrypt(access: Access) -> Call:
    """Wrap a root key."""
    return Call(access, "encrypt", json.dumps({"plaintext": root_key_wrap()}))


def decrypt(access: Access) -> Call:
    """Unwrap a root key. The first answer is checked. Raises BenchFailed."""
    wrap = root_key_wrap()
    sealed = Call(access, "encrypt", json.dumps({"plaintext": wrap})).once()["ciphertext"]
    call = Call(access, "decrypt", json.dumps({"ciphertext": sealed}))
    if call.once()["plaintext"] != wrap:
        raise BenchFailed(f"{access.address} decrypted to something else")
    return call


def run(call: Call, seconds: float) -> Load:
    """Repeat a call for whole seconds. Raises BenchFailed.

    One thread, 32 connections that are kept: each has one request under way at a time.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise BenchFailed("wrk is missing: make bench installs it (Debian package wrk)")
    environment = clean_environment() | {
        "KLUIS_BENCH_TOKEN": call.access.token,
        "KLUIS_BENCH_BODY": call.body,
    }
    argv = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--timeout", "30s"]
    done = subprocess.run(
        [*argv, "-s", str(_SCRIPT), call.url],
        capture_output=True,
        text=True,
        env=environment,
        timeout=seconds + 60,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode != 0 or not lines:
        raise BenchFailed(f"wrk ended with {done.returncode}: {done.stderr or done.stdout}")
    return _read(json.loads(lines[0].removeprefix("RESULT ")))


def _read(found: dict[str, int]) -> Load:
    if found["refused"] or found["broken"]:
        raise BenchFailed(f"{found['refused']} requests were refused, {found['broken']} broke off")
    return Load(
        requests=found["requests"],
        requests_per_s=found["requests"] / found["duration_us"] * 1e6,
        p50_ms=found["p50_us"] / 1000,
        p99_ms=found["p99_us"] / 1000,
    )
