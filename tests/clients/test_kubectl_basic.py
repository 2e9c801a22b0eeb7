"""kubectl, old and new, against the lab's API server: what every user does first."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from apiserver_harness import KUBECTLS, Lab, running

pytestmark = pytest.mark.clients

MANIFEST = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - {name: c, image: nginx, ports: [{containerPort: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  replicas: 2
  selector: {matchLabels: {app: d}}
  template:
    metadata: {labels: {app: d}}
    spec: {containers: [{name: c, image: nginx}]}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running(Path(tmp_path_factory.mktemp("api")), "--no-controllers") as found:
        yield found


def test_there_is_a_kubectl() -> None:
    assert KUBECTLS, "install kubernetes-client"


@pytest.mark.parametrize("binary", KUBECTLS)
def test_apply_get_delete(lab: Lab, binary: str) -> None:
    assert lab.kubectl(binary, "apply", "-f-", stdin=MANIFEST).split("\n")[:2] == [
        "pod/web created",
        "deployment.apps/d created",
    ]
    assert "unchanged" in lab.kubectl(binary, "apply", "-f-", stdin=MANIFEST)
    assert "pod/web configured" in lab.kubectl(
        binary, "apply", "-f-", stdin=MANIFEST.replace("nginx", "nginx:2")
    )
    assert "nginx:2" in lab.kubectl(binary, "get", "pod", "web", "-o", "yaml")
    assert "web" in lab.kubectl(binary, "get", "po,deploy", "-A", "-o", "wide", "-l", "app=web")
    out = lab.kubectl(binary, "delete", "--timeout=240s", "-f-", stdin=MANIFEST)
    assert 'pod "web" deleted' in out
    assert "NotFound" in lab.kubectl(binary, "get", "pod", "web", ok=False)
