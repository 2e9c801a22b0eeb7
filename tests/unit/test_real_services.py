"""What a node's daemons are told, by version of Kubernetes: only 1.20 can be run wherever the tests run."""

import json
from pathlib import Path
from typing import Any

import pytest

from towpath.lab.real.binaries import KubeBinaries, Version
from towpath.lab.real.services import kubelet_config, proxy_config, services
from towpath.lab.topology import lab_spec

SPEC = lab_spec({}, nodes=1)
NODE = SPEC.nodes[0]
OLD, NEW = Version(1, 20, 2), Version(1, 35)


def config(version: Version) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kubelet_config(version))
    return found


def kubelet_arguments(folder: Path, version: Version) -> tuple[str, ...]:
    for name in ("kubelet", "kube-proxy", "containerd"):
        (folder / name).touch(mode=0o755)
    found = services(KubeBinaries(folder, version), SPEC, NODE)
    return next(service.argv for service in found if service.name == "kubelet")


def test_dual_stack_is_a_gate_until_it_is_not() -> None:
    """A gate that is gone stops a kubelet and a kube-proxy from starting."""
    for text in (kubelet_config(OLD), proxy_config(OLD, SPEC, NODE)):
        assert json.loads(text)["featureGates"] == {"IPv6DualStack": True}
    for text in (kubelet_config(NEW), proxy_config(NEW, SPEC, NODE)):
        assert "featureGates" not in json.loads(text)


def test_the_runtime_is_named_where_the_version_looks(tmp_path: Path) -> None:
    old, new = kubelet_arguments(tmp_path, OLD), kubelet_arguments(tmp_path, NEW)
    assert "--container-runtime=remote" in old
    assert not any(argument.startswith("--container-runtime") for argument in new)
    assert config(NEW)["containerRuntimeEndpoint"] == "unix:///run/containerd/containerd.sock"
    assert "containerRuntimeEndpoint" not in config(OLD)


@pytest.mark.parametrize(("version", "told"), [(OLD, None), (Version(1, 30), None), (NEW, False)])
def test_version_1_of_cgroups_stays_allowed(version: Version, told: bool | None) -> None:
    assert config(version).get("failCgroupV1") is told
