"""The log is one JSON object a line, and can't stop the service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kluis import telemetry


def test_a_line_of_the_log_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.logger().info("opened", keyring="homelab")
    said = json.loads(capsys.readouterr().err)
    assert (said["event"], said["keyring"], said["level"]) == ("opened", "homelab", "info")


def test_a_log_on_a_full_disk_stops_nothing() -> None:
    program = "from kluis import telemetry; telemetry.logger().info('opened'); print('goes on')"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, check=False
        )
    assert done.stdout == b"goes on\n"
