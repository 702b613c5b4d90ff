"""A real moto server for tests: AWS KMS in a process of its own, spoken to over HTTP.

    with moto() as aws:
        arn = aws.create_key()
        aws.schedule_deletion(arn)

What moto does: it binds the encryption context, keeps aliases, states, replicas and key policies,
and enforces IAM policies when told to. What it does not: it opens and seals with a key that is
disabled or waits for its deletion, opens nothing that a multi-region key sealed, and its words for
a refusal by IAM are not those of AWS.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import botocore.session
import pytest
from botocore.config import Config

from tests.support.bao import free_port, wait_until

REGION: Final = "eu-west-1"
OTHER_REGION: Final = "us-east-1"
ACCESS_KEY_ID: Final = "AKIAKLUISTESTSACCESS"
SECRET_ACCESS_KEY: Final = "kluis/Tests/SecretAccessKey/0123456789AB"
SESSION_TOKEN: Final = "kluis-tests-session-token-0123456789abcdef"
START_S: Final = 60.0
TRIES: Final = 5


class MotoFailed(AssertionError):
    """moto is not installed, or does not start; carries the end of its log."""


class Moto:
    """A running server. Its keys have no end but with it: every test makes its own."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self._clients: dict[tuple[str, str], Any] = {}
        self._stacks: dict[str, str] = {}

    def client(self, service: str = "kms", region: str = REGION) -> Any:
        """A client of botocore; it does not read this machine's own AWS files."""
        if (service, region) not in self._clients:
            session = botocore.session.Session()
            for name in ("config_file", "credentials_file"):
                session.set_config_variable(name, os.devnull)
            self._clients[service, region] = session.create_client(
                service,
                region,
                endpoint_url=self.endpoint,
                config=Config(retries={"total_max_attempts": 1, "mode": "standard"}),
                aws_access_key_id=ACCESS_KEY_ID,
                aws_secret_access_key=SECRET_ACCESS_KEY,
            )
        return self._clients[service, region]

    def create_key(self, region: str = REGION, **more: object) -> str:
        """A new key; its ARN."""
        return str(self.client(region=region).create_key(**more)["KeyMetadata"]["Arn"])

    def create_mortal_key(self) -> str:
        """A new key that ``delete_key`` can delete at once, as only CloudFormation does here."""
        stack = f"kluis-{uuid.uuid4()}"
        template = {"Resources": {"K": {"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": {}}}}}
        formation = self.client("cloudformation")
        formation.create_stack(StackName=stack, TemplateBody=json.dumps(template))
        [made] = formation.describe_stack_resources(StackName=stack)["StackResources"]
        key_id = made["PhysicalResourceId"]
        # CloudFormation's policy is not in the form that moto reads later
        self.client().put_key_policy(KeyId=key_id, PolicyName="default", Policy="{}")
        arn = str(self.describe(key_id)["Arn"])
        self._stacks[arn] = stack
        return arn

    def delete_key(self, arn: str) -> None:
        """Delete a key of ``create_mortal_key``, for good."""
        self.client("cloudformation").delete_stack(StackName=self._stacks.pop(arn))

    def describe(self, key: str, region: str = REGION) -> dict[str, Any]:
        """What DescribeKey says of a key."""
        metadata: dict[str, Any] = self.client(region=region).describe_key(KeyId=key)["KeyMetadata"]
        return metadata

    def create_alias(self, arn: str, region: str = REGION) -> str:
        """A new alias of a key; its name."""
        alias = f"alias/kluis-{uuid.uuid4()}"
        self.client(region=region).create_alias(AliasName=alias, TargetKeyId=arn)
        return alias

    def move_alias(self, alias: str, arn: str) -> None:
        """Let an alias stand for another key."""
        self.client().update_alias(AliasName=alias, TargetKeyId=arn)

    def disable(self, arn: str) -> None:
        """Switch a key off."""
        self.client().disable_key(KeyId=_id(arn))

    def enable(self, arn: str) -> None:
        """Switch a key on."""
        self.client().enable_key(KeyId=_id(arn))

    def schedule_deletion(self, arn: str, days: int = 7) -> None:
        """Let a key wait for its deletion."""
        self.client().schedule_key_deletion(KeyId=_id(arn), PendingWindowInDays=days)

    def cancel_deletion(self, arn: str) -> None:
        """Let a key live."""
        self.client().cancel_key_deletion(KeyId=_id(arn))

    def deny_describe(self, arn: str) -> None:
        """Let the key's policy deny DescribeKey, the one action that moto checks there."""
        statement = {"Effect": "Deny", "Principal": "*", "Action": ["kms:DescribeKey"]}
        policy = {"Version": "2012-10-17", "Statement": [{**statement, "Resource": "*"}]}
        self.client().put_key_policy(KeyId=arn, PolicyName="default", Policy=json.dumps(policy))

    def replicate(self, arn: str, region: str = OTHER_REGION) -> str:
        """A replica of a multi-region key; its ARN."""
        answer = self.client().replicate_key(KeyId=_id(arn), ReplicaRegion=region)
        return str(answer["ReplicaKeyMetadata"]["Arn"])

    @contextlib.contextmanager
    def enforcing_policies(self) -> Iterator[None]:
        """From now on nobody may do anything that a policy does not allow."""
        self._post("/moto-api/reset-auth", b"0")
        try:
            yield
        finally:
            self._post("/moto-api/reset-auth", b"inf")

    def close(self) -> None:
        """Close the connections of the clients."""
        for client in self._clients.values():
            client.close()

    def answers(self) -> bool:
        """Whether the server is up."""
        try:
            with urllib.request.urlopen(f"{self.endpoint}/moto-api/data.json", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _post(self, path: str, body: bytes) -> None:
        headers = {"Content-Type": "text/plain"}  # what looks like a form moto does not read
        request = urllib.request.Request(f"{self.endpoint}{path}", body, headers)
        with urllib.request.urlopen(request, timeout=10):
            pass


def _id(arn: str) -> str:
    """The key's id: where a key is changed, moto does not know it by its ARN."""
    return arn.rpartition("/")[2]


@contextlib.contextmanager
def moto() -> Iterator[Moto]:
    """A moto server on a free port of loopback; it ends with the block."""
    with tempfile.TemporaryFile() as log, contextlib.ExitStack() as stack:
        for _ in range(TRIES):
            port = free_port()
            process = stack.enter_context(_process(port, log))
            server = Moto(port)
            wait_until(
                lambda: process.poll() is not None or server.answers(),  # noqa: B023 - at once
                "moto answers",
                START_S,
            )
            if process.poll() is None:
                stack.callback(server.close)
                yield server
                return
        log.seek(0)
        raise MotoFailed(f"moto does not start: {log.read()[-2000:].decode(errors='replace')}")


@contextlib.contextmanager
def _process(port: int, log: Any) -> Iterator[subprocess.Popen[bytes]]:
    program = Path(sys.executable).with_name("moto_server")
    if not program.is_file():
        raise MotoFailed("moto is missing; install it with: .venv/bin/pip install 'moto[server]'")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    process = subprocess.Popen(
        [str(program), "-H", "127.0.0.1", "-p", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def use_credentials(environment: pytest.MonkeyPatch, folder: Path) -> None:
    """Give this process AWS credentials, and nothing else of AWS: not this machine's own files."""
    no_credentials(environment, folder)
    environment.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
    environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
    environment.setenv("AWS_SESSION_TOKEN", SESSION_TOKEN)


def no_credentials(environment: pytest.MonkeyPatch, folder: Path) -> None:
    """Take away whatever AWS's chain would find in this process and on this machine."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            environment.delenv(name)
    environment.setenv("AWS_CONFIG_FILE", str(folder / "aws-config"))
    environment.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "aws-credentials"))
    environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
