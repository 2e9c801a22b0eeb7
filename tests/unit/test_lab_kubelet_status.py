"""A pod's status as the kubelet words it."""

from typing import Any

import pytest

from towpath.lab.kubelet_spec import Container, Pod, PodMeta, PodSpec, PodStatus
from towpath.lab.kubelet_status import ContainerState, PodState, image_id, phase, status, tagged_name

NOW = 1_800_000_000.0


def pod(policy: str = "Always", inits: int = 0, **fields: Any) -> Pod:
    return Pod(
        metadata=PodMeta(name="a", namespace="default", uid="u"),
        spec=PodSpec(
            restart_policy=policy,
            containers=[Container(name="c", image="towpath/echo:1")],
            init_containers=[Container(name=f"i{n}", image="x") for n in range(inits)],
        ),
        **fields,
    )


def state(c: ContainerState, *inits: ContainerState, sandbox: bool = True) -> PodState:
    return PodState(
        host_ips=["172.30.0.11", "fd00:172:30::11"],
        pod_ips=["10.42.0.2", "fd00:10:42::2"],
        containers={"c": c},
        inits={i.name: i for i in inits},
        sandbox=sandbox,
    )


def fresh() -> ContainerState:
    return ContainerState(name="c")


def running(ready: bool = True) -> ContainerState:
    return ContainerState(name="c", id="1", running=True, began=NOW, ready=ready, started=True, waiting="")


def ended(code: int, name: str = "c") -> ContainerState:
    return ContainerState(name=name, id="1", began=NOW, ended=NOW + 1, exit_code=code, waiting="")


@pytest.mark.parametrize(
    ("policy", "container", "expected"),
    [
        ("Always", fresh(), "Pending"),
        ("Always", running(), "Running"),
        ("Always", ended(1), "Running"),
        ("Never", ended(0), "Succeeded"),
        ("Never", ended(1), "Failed"),
        ("OnFailure", ended(0), "Succeeded"),
        ("OnFailure", ended(1), "Running"),
    ],
)
def test_phase(policy: str, container: ContainerState, expected: str) -> None:
    assert phase(pod(policy), state(container)) == expected


def test_init_containers_hold_the_phase() -> None:
    waiting = ContainerState(name="i0", id="1", running=True, waiting="")
    assert phase(pod(inits=1), state(fresh(), waiting)) == "Pending"
    assert phase(pod("Never", inits=1), state(fresh(), ended(1, "i0"))) == "Failed"
    assert phase(pod(inits=1), state(running(), ended(0, "i0"))) == "Running"


def test_a_ready_pod() -> None:
    shown = status(pod(), state(running()), NOW)
    assert shown["podIP"] == "10.42.0.2"
    assert shown["podIPs"] == [{"ip": "10.42.0.2"}, {"ip": "fd00:10:42::2"}]
    assert {c["type"]: c["status"] for c in shown["conditions"]} == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "Ready": "True",
        "ContainersReady": "True",
    }
    (container,) = shown["containerStatuses"]
    assert container["state"] == {"running": {"startedAt": "2027-01-15T08:00:00Z"}}
    assert container["imageID"].startswith("docker.io/towpath/echo@sha256:")


def test_containers_are_being_created_meanwhile() -> None:
    shown = status(pod(), state(fresh(), sandbox=False), NOW)
    assert shown["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert shown["phase"] == "Pending"


def test_transition_times_and_foreign_conditions_stay() -> None:
    before = [
        {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"},
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2019-01-01T00:00:00Z"},
    ]
    shown = status(pod(status=PodStatus(conditions=before)), state(running()), NOW)
    by_type = {c["type"]: c for c in shown["conditions"]}
    assert by_type["Ready"]["lastTransitionTime"] == "2020-01-01T00:00:00Z"
    assert by_type["PodScheduled"] == before[1]
    lost = status(pod(status=PodStatus(conditions=before)), state(running(ready=False)), NOW)
    assert {c["type"]: c for c in lost["conditions"]}["Ready"]["lastTransitionTime"] == "2027-01-15T08:00:00Z"


def test_a_crash_shows_what_came_before() -> None:
    crashed = ended(3)
    crashed.waiting, crashed.last = "CrashLoopBackOff", ended(3).terminated()
    (container,) = status(pod(), state(crashed), NOW)["containerStatuses"]
    assert container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert container["lastState"]["terminated"]["exitCode"] == 3


@pytest.mark.parametrize(
    ("image", "tagged", "repository"),
    [
        ("busybox", "docker.io/library/busybox:latest", "docker.io/library/busybox"),
        ("towpath/echo:1", "docker.io/towpath/echo:1", "docker.io/towpath/echo"),
        ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x"),
        ("ghcr.io/a/b:v2", "ghcr.io/a/b:v2", "ghcr.io/a/b"),
    ],
)
def test_image_names(image: str, tagged: str, repository: str) -> None:
    assert tagged_name(image) == tagged
    assert image_id(image).split("@")[0] == repository
