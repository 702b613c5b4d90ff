"""What is in ``deploy/``: manifests and units have the shape that they must have, and run kluis."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import typer.main

from kluis import compose, configuration
from kluis.cli.main import app
from kluis.kubernetes.objects import PODS
from kluis.secret import Secret
from kluis.service.key_files import KeyFiles
from kluis.service.static_seal import SealKey
from kluis.wake.freshness import PARENTS, SECRETS
from kluis.wake.stores import CLUSTER_STORES, STORES
from tests.support.bao import Bao
from tests.support.tls import Authority

yaml: Any = importlib.import_module("yaml")  # ships no types

DEPLOY: Final = Path(__file__).parent.parent / "deploy"
KUBERNETES: Final = DEPLOY / "kubernetes"
MANIFESTS: Final = sorted(KUBERNETES.rglob("*.yaml"))
UNITS: Final = sorted((DEPLOY / "systemd").glob("*.service"))
CONTAINERFILE: Final = DEPLOY / "container" / "Containerfile"
Object = dict[str, Any]

KINDS: Final = {
    "ClusterRole": "rbac.authorization.k8s.io/v1",
    "ClusterRoleBinding": "rbac.authorization.k8s.io/v1",
    "ConfigMap": "v1",
    "Deployment": "apps/v1",
    "Kustomization": "kustomize.config.k8s.io/v1beta1",
    "Namespace": "v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "PersistentVolumeClaim": "v1",
    "Pod": "v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "Service": "v1",
    "ServiceAccount": "v1",
    "StatefulSet": "apps/v1",
}


def objects(folder: Path = KUBERNETES) -> list[Object]:
    return [
        found
        for path in sorted(folder.rglob("*.yaml"))
        for found in yaml.safe_load_all(path.read_text("utf-8"))
    ]


def of_kind(*kinds: str, folder: Path = KUBERNETES) -> list[Object]:
    return [found for found in objects(folder) if found["kind"] in kinds]


def pods() -> list[tuple[str, Object, Object]]:
    """Every pod: the name of what makes it, its metadata and its spec."""
    return [
        (found["metadata"]["name"], template["metadata"], template["spec"])
        for found in of_kind("Pod", "StatefulSet", "Deployment")
        for template in [found if found["kind"] == "Pod" else found["spec"]["template"]]
    ]


def containers(spec: Object) -> list[Object]:
    return [*spec.get("initContainers", ()), *spec["containers"]]


ALL_CONTAINERS: Final = [
    pytest.param(spec, one, id=f"{name}/{one['name']}")
    for name, _, spec in pods()
    for one in containers(spec)
]


def settings(unit: Path) -> dict[str, dict[str, list[str]]]:
    """The sections of a unit; a directive may stand more than once."""
    found: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in unit.read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = header[1]
            continue
        name, equals, value = line.partition("=")
        assert equals, line
        found.setdefault(section, {}).setdefault(name, []).append(value)
    return found


# -- manifests


def test_every_manifest_has_a_kind_of_its_api_and_is_in_its_kustomization() -> None:
    assert len(MANIFESTS) >= 12
    for found in objects():
        assert found["apiVersion"] == KINDS[found["kind"]]
    for kustomization in KUBERNETES.rglob("kustomization.yaml"):
        listed = set(yaml.safe_load(kustomization.read_text("utf-8"))["resources"])
        there = {path.name for path in kustomization.parent.glob("*.yaml")}
        assert there - listed <= {"kustomization.yaml", "setup.yaml"}
        assert listed <= there


def test_selectors_choose_pods_that_there_are() -> None:
    labels = [metadata["labels"] for _, metadata, _ in pods()]
    for found in of_kind("StatefulSet", "Deployment"):
        wanted = found["spec"]["selector"]["matchLabels"].items()
        assert wanted <= found["spec"]["template"]["metadata"]["labels"].items()
    services = [found["spec"]["selector"] for found in of_kind("Service")]
    policies = [found["spec"]["podSelector"]["matchLabels"] for found in of_kind("NetworkPolicy")]
    for selector in (*services, *policies):
        assert any(selector.items() <= pod.items() for pod in labels)


def test_named_ports_are_there() -> None:
    named = {
        port["name"]: port["containerPort"]
        for _, _, spec in pods()
        for one in containers(spec)
        for port in one.get("ports", ())
    }
    for service in of_kind("Service"):
        assert all(named[port["targetPort"]] == port["port"] for port in service["spec"]["ports"])
    for policy in of_kind("NetworkPolicy"):
        rules = policy["spec"]["ingress"] + policy["spec"]["egress"]
        ports = [port["port"] for rule in rules for port in rule["ports"]]
        assert all(port in named for port in ports if isinstance(port, str))


def test_what_a_pod_mounts_is_there() -> None:
    made = {
        (found["kind"], found["metadata"]["name"]) for found in objects() if "metadata" in found
    }
    by_hand = {
        *(("Secret", name) for name in ("openbao-seal", "openbao-tls", "kluis-aws")),
        ("ConfigMap", "kluis-ca"),
    }
    claims = [
        claim["metadata"]["name"]
        for found in of_kind("StatefulSet")
        for claim in found["spec"]["volumeClaimTemplates"]
    ]
    for _, _, spec in pods():
        volumes = {volume["name"] for volume in spec["volumes"]} | set(claims)
        mounted = {m["name"] for one in containers(spec) for m in one["volumeMounts"]}
        assert mounted <= volumes
        assert mounted >= {volume["name"] for volume in spec["volumes"]}
        assert set(sources(spec)) <= made | by_hand
        assert ("ServiceAccount", spec.get("serviceAccountName")) in made | {
            ("ServiceAccount", None)
        }


def sources(spec: Object) -> Iterator[tuple[str, str]]:
    """What the volumes and the environment of a pod come from."""
    for volume in spec["volumes"]:
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
    for one in containers(spec):
        for source in one.get("envFrom", ()):
            yield "Secret", source["secretRef"]["name"]


@pytest.mark.parametrize(("spec", "container"), ALL_CONTAINERS)
def test_no_container_has_a_right_that_it_does_not_need(spec: Object, container: Object) -> None:
    of_pod, own = spec["securityContext"], container["securityContext"]
    assert of_pod["runAsNonRoot"] is True
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert of_pod["fsGroupChangePolicy"] == "OnRootMismatch"
    assert own.get("runAsUser", of_pod.get("runAsUser")) > 0
    assert own["allowPrivilegeEscalation"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert "privileged" not in own
    assert not any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))
    assert not any("hostPath" in volume for volume in spec["volumes"])
    assert "memory" in container["resources"]["limits"]
    assert "/" not in container["image"], "a placeholder names no registry"


def test_the_key_and_the_paper_are_in_memory_only() -> None:
    (_, _, spec), *_ = [pod for pod in pods() if pod[0] == "openbao"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for name in ("handover", "paper"):
        assert volumes[name]["emptyDir"]["medium"] == "Memory"
    mounts = {one["name"]: {m["name"]: m for m in one["volumeMounts"]} for one in containers(spec)}
    assert mounts["openbao"]["handover"]["readOnly"] is True
    assert not {"seal", "paper", "kluis"} & mounts["openbao"].keys()
    assert "seal" not in mounts["kluis"]
    assert volumes["seal"]["secret"]["optional"] is True
    assert spec["initContainers"][1]["restartPolicy"] == "Always"
    tpm = "devices.kluis/tpmrm0"
    has_tpm = {one["name"] for one in containers(spec) if tpm in one["resources"]["limits"]}
    assert has_tpm == {"bootstrap", "kluis"}


def test_the_account_may_do_what_the_code_asks_for_and_nothing_else() -> None:
    asked = {
        **{(one.group, one.plural): {"list", "watch", "patch"} for one in (CLUSTER_STORES, STORES)},
        (SECRETS.group, SECRETS.plural): {"list", "watch", "patch"},
        (PARENTS.group, PARENTS.plural): {"patch"},
        (PODS.group, PODS.plural): {"list"},
    }
    allowed = {
        (group, resource): set(rule["verbs"])
        for role in of_kind("Role", "ClusterRole")
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert allowed == asked
    roles = {(found["kind"], found["metadata"]["name"]) for found in of_kind("Role", "ClusterRole")}
    for binding in of_kind("RoleBinding", "ClusterRoleBinding"):
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) in roles
        account = {"kind": "ServiceAccount", "name": "kluis-watch", "namespace": "kluis"}
        assert binding["subjects"] == [account]


# -- what they run

ROOT: Final = typer.main.get_command(app)


def parse(arguments: Sequence[str]) -> Mapping[str, Any]:
    """The options of a command line of kluis, by the real parser. Raises what it raises."""
    context = ROOT.make_context("kluis", list(arguments))
    args, command = [*context._protected_args, *context.args], ROOT
    while args and hasattr(command, "resolve_command"):
        _, command, args = command.resolve_command(context, args)
        context = command.make_context(command.name, args, parent=context)
        args = [*context._protected_args, *context.args]
    assert not args, args
    return dict(context.params)


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every command line of kluis in deploy, with where it is."""
    for name, _, spec in pods():
        for one in containers(spec):
            if one["image"].startswith("kluis:") and "args" in one:
                yield f"{name}/{one['name']}", one["args"]
    for unit in UNITS:
        words = shlex.split(settings(unit)["Service"]["ExecStart"][0])
        assert words[0] == "/opt/kluis/bin/kluis"
        yield unit.name, [word.replace("%i", "bletchley") for word in words[1:]]
    for path in MANIFESTS:
        for line in re.findall(r"#.*-- (kluis .*)", path.read_text("utf-8")):
            yield path.name, shlex.split(line.partition(" < ")[0].partition(" #")[0])[1:]


LINES: Final = list(command_lines())


@pytest.mark.parametrize("line", [line for _, line in LINES], ids=[where for where, _ in LINES])
def test_every_command_line_is_one_of_kluis(line: list[str]) -> None:
    parse(line)


def test_there_are_command_lines_of_all_that_is_deployed() -> None:
    assert {line[0] for _, line in LINES} >= {"bootstrap", "sidecar", "watch", "serve", "run"}


@pytest.mark.parametrize("folder", ["openbao-tpm", "watch"])
def test_the_configuration_is_one_and_holds_what_the_commands_name(
    folder: str, tmp_path: Path
) -> None:
    (text,) = [
        found["data"]["kluis.toml"]
        for found in of_kind("ConfigMap", folder=KUBERNETES / folder)
        if "kluis.toml" in found["data"]
    ]
    file = tmp_path / "kluis.toml"
    file.write_text(text)
    drawn = compose.draw(configuration.read(file))
    mounts = [
        m["mountPath"] for _, _, s in pods() for c in containers(s) for m in c["volumeMounts"]
    ]
    for keyring in drawn.folders.values():
        assert str(keyring.parent) in mounts, "a folder of its own within the volume"
    for where, line in LINES:
        if where.startswith("openbao/") and folder == "openbao-tpm":
            keyring_name, _, key = str(parse(line)["key"]).partition("/")
            assert drawn.wanted[keyring_name].keys[key] == "static-seal"


def test_the_example_server_starts_on_what_the_sidecar_hands_over(tmp_path: Path) -> None:
    (hcl,) = [f["data"]["bao.hcl"] for f in of_kind("ConfigMap") if "bao.hcl" in f["data"]]
    certificate = Authority(tmp_path / "ca").issue("bao", "localhost", "127.0.0.1")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        files = KeyFiles(Path(memory) / "seal.key")
        files.place((SealKey(Secret(os.urandom(32)), "node-unseal-v1"),))
        bao = Example(tmp_path / "bao", tls=certificate)
        bao.stanza, bao.seal = files.stanza, "static"
        for old, new in {
            '"/var/lib/openbao"': f'"{bao.directory}/data"',
            "[::]:8200": f"127.0.0.1:{bao.port}",
            "[::]:8201": f"127.0.0.1:{bao.cluster_port}",
            "https://openbao-0.openbao-internal.openbao.svc:8200": bao.address,
            "/etc/openbao-tls/ca.crt": str(tmp_path / "ca" / "ca.crt"),
            "/etc/openbao-tls/tls.crt": str(certificate.certificate),
            "/etc/openbao-tls/tls.key": str(certificate.key),
        }.items():
            assert old in hcl
            hcl = hcl.replace(old, new)
        bao.config_file.write_text(hcl)
        cluster = f"https://127.0.0.1:{bao.cluster_port}"
        names = {"RAFT_NODE_ID": "openbao-0", "API_ADDR": bao.address, "CLUSTER_ADDR": cluster}
        bao.environment |= {f"BAO_{name}": value for name, value in names.items()}
        assert {f"BAO_{name}" for name in names} <= environment_of("openbao")
        with bao:
            root = bao.init().root_token
            answer = bao.must("GET", "sys/storage/raft/configuration", token=root)
            assert "openbao-0" in str(answer)
        assert "unknown or unsupported field" not in bao.log()


class Example(Bao):
    """A server with the stanza of a sidecar beside its own configuration."""

    stanza: Path

    @property
    def argv(self) -> list[str]:
        return [*super().argv, f"-config={self.stanza}"]


def environment_of(container: str) -> set[str]:
    return {
        variable["name"]
        for _, _, spec in pods()
        for one in containers(spec)
        if one["name"] == container
        for variable in one.get("env", ())
    }


# -- units

DIRECTIVES: Final = {
    "Unit": {"Description", "Wants", "After", "Conflicts", "StartLimitIntervalSec"},
    "Install": {"WantedBy"},
    "Service": {
        *("Type", "ExecStart", "ExecReload", "Restart", "RestartSec", "KillMode"),
        *("TimeoutStartSec", "TimeoutStopSec", "User", "Group", "SupplementaryGroups"),
        *("StateDirectory", "StateDirectoryMode", "UMask", "LoadCredentialEncrypted"),
        *("DevicePolicy", "DeviceAllow", "LimitMEMLOCK", "LimitCORE", "LimitNOFILE"),
        *("NoNewPrivileges", "CapabilityBoundingSet", "AmbientCapabilities", "ProtectSystem"),
        *("ProtectHome", "PrivateTmp", "ProtectProc", "ProtectClock", "ProtectHostname"),
        *("ProtectControlGroups", "ProtectKernelLogs", "ProtectKernelModules"),
        *("ProtectKernelTunables", "RestrictAddressFamilies", "RestrictNamespaces"),
        *("RestrictRealtime", "RestrictSUIDSGID", "RemoveIPC", "KeyringMode", "LockPersonality"),
        *("SystemCallArchitectures", "SystemCallErrorNumber", "SystemCallFilter"),
        "MemoryDenyWriteExecute",
    },
}
"""Those that ``systemd-analyze verify`` of systemd 252 knows."""


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.name))
def test_a_unit_is_narrow_and_may_still_use_a_tpm(unit: Path) -> None:
    found = settings(unit)
    assert {section: set(names) - DIRECTIVES[section] for section, names in found.items()} == {
        section: set() for section in DIRECTIVES
    }
    service = {name: values[-1] for name, values in found["Service"].items()}
    assert (service["Type"], service["Restart"]) == ("notify", "always")
    assert (service["DevicePolicy"], service["DeviceAllow"]) == ("closed", "/dev/tpmrm0 rw")
    assert "PrivateDevices" not in service
    assert (service["LimitMEMLOCK"], service["LimitCORE"]) == ("infinity", "0")
    assert (service["StateDirectoryMode"], service["UMask"]) == ("0700", "0077")
    assert service["CapabilityBoundingSet"] == ""
    assert service["ProtectSystem"] == "strict"
    assert service["NoNewPrivileges"] == service["MemoryDenyWriteExecute"] == "yes"
    assert found["Service"]["SystemCallFilter"] == ["@system-service", "~@privileged @resources"]
    assert {"AF_UNIX", "AF_INET", "AF_INET6"} <= set(service["RestrictAddressFamilies"].split())
    if unit.name.startswith("kluis-run"):
        assert int(service["TimeoutStopSec"]) > 60, "a held unseal ends first"
        assert service["TimeoutStartSec"] == "infinity"


def test_there_is_a_unit_for_each_way_of_running() -> None:
    assert [unit.name for unit in UNITS] == [
        *("kluis-run@.service", "kluis-serve.service", "kluis-watch.service")
    ]


# -- the image


def test_the_image_is_built_from_the_locks_and_runs_without_rights() -> None:
    text = CONTAINERFILE.read_text("utf-8")
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"python:3.13-slim"}
    for copied in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        assert all((DEPLOY.parent / name).exists() for name in copied.split())
    installs = re.findall(r"pip (?:install|wheel) ([^&\n]*)", text.replace("\\\n", ""))
    assert len(installs) == 4
    assert all("--require-hashes" in one or "--no-deps" in one for one in installs)
    (user,) = re.findall(r"^USER (\d+):(\d+)$", text, re.MULTILINE)
    (_, _, spec), *_ = [pod for pod in pods() if pod[0] == "openbao"]
    own = spec["initContainers"][0]["securityContext"]
    assert (own["runAsUser"], own["runAsGroup"]) == tuple(map(int, user))


def test_nothing_names_a_host_of_a_registry() -> None:
    for path in DEPLOY.rglob("*"):
        if path.suffix in (".yaml", ".service") or path == CONTAINERFILE:
            text = path.read_text("utf-8")
            assert not re.search(r"(docker|quay|ghcr|gcr|registry\.k8s)\.io/|pypi\.org", text)
