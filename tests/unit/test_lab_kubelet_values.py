"""What containers are told, and what their logs say."""

from pathlib import Path

import pytest

from towpath.lab.kubelet_containers import dropped, echo, hostname
from towpath.lab.kubelet_exec import final_status, subprotocol
from towpath.lab.kubelet_logs import BadLogOptions, LogOptions, log_options, log_path, read, shown
from towpath.lab.kubelet_spec import (
    Capabilities,
    Container,
    Pod,
    PodMeta,
    PodSpec,
    Port,
    SecurityContext,
    named_port,
)
from towpath.lab.kubelet_values import MissingReference, expand, field

POD = Pod(
    metadata=PodMeta(name="a", namespace="ns", uid="u", labels={"app": "x", "b/c": "d"}),
    spec=PodSpec(node_name="n1"),
)
LOG = b"""2026-11-23T09:00:00.000000000Z stdout F one
2026-11-23T09:00:01.000000000Z stderr F two
2026-11-23T09:00:02.000000000Z stdout P thr
2026-11-23T09:00:02.000000000Z stdout F ee
garbage
"""


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$(A)-$(B)", "1-$(B)"),
        ("$$(A)", "$(A)"),
        ("$A", "$A"),
        ("$(", "$("),
        ("", ""),
    ],
)
def test_expansion(text: str, result: str) -> None:
    assert expand(text, {"A": "1"}) == result


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "a"),
        ("metadata.labels['b/c']", "d"),
        ("metadata.labels['none']", ""),
        ("metadata.labels", 'app="x"\nb/c="d"'),
        ("spec.nodeName", "n1"),
        ("status.podIPs", "10.42.0.2,fd00::2"),
        ("status.hostIP", "172.30.0.11"),
    ],
)
def test_downward_fields(path: str, value: str) -> None:
    assert field(POD, path, ["10.42.0.2", "fd00::2"], ["172.30.0.11"]) == value


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(MissingReference, match=r"spec\.secret"):
        field(POD, "spec.secret", [], ["x"])


def test_capabilities_dropped_and_kept() -> None:
    def numbers(drop: list[str], add: list[str]) -> tuple[int, ...]:
        limits = SecurityContext(capabilities=Capabilities(drop=drop, add=add))
        return dropped(Container(name="c", security_context=limits))

    assert numbers(["NET_RAW"], []) == (13,)
    assert set(range(41)) - set(numbers(["ALL"], ["NET_ADMIN"])) == {12}
    assert numbers([], []) == dropped(Container(name="c")) == ()


def test_named_ports() -> None:
    container = Container(name="c", ports=[Port(container_port=80, name="web")])
    assert (named_port(container, "web"), named_port(container, "81"), named_port(container, 82)) == (
        80,
        81,
        82,
    )
    with pytest.raises(KeyError, match="nope"):
        named_port(container, "nope")


def test_the_echo_workload_names_the_pod_and_serves_declared_ports() -> None:
    spec = Container(name="c", ports=[Port(container_port=80), Port(container_port=53, protocol="UDP")])
    made = echo(POD, spec)
    assert made.identity == "ns/a"
    assert [(p.port, p.protocol) for p in made.ports] == [(80, "TCP"), (53, "UDP")]


def test_host_names_are_cut_where_the_kernel_would() -> None:
    long = Pod(metadata=PodMeta(name="x" * 62 + "-" + "y" * 30))
    assert hostname(long) == "x" * 62


async def shown_log(path: Path, **options: object) -> bytes:
    chosen = LogOptions(**options)  # type: ignore[arg-type]
    return b"".join([piece async for piece in read(path, chosen, lambda: False)])


async def test_logs(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(LOG)
    assert await shown_log(path) == b"one\ntwo\nthree\n"
    assert await shown_log(path, tail=1) == b"ee\n"
    assert await shown_log(path, tail=0) == b""
    assert await shown_log(path, limit=5) == b"one\nt"
    assert await shown_log(path, since="2026-11-23T09:00:01Z") == b"two\nthree\n"
    assert (await shown_log(path, timestamps=True)).startswith(b"2026-11-23T09:00:00.000000000Z one\n")
    assert await shown_log(path, follow=True) == b"one\ntwo\nthree\n"


def test_log_options_and_files() -> None:
    options = log_options({"follow": "true", "tailLines": "3", "sinceSeconds": "10"}, 1_800_000_000.0)
    assert (options.follow, options.tail, options.since) == (True, 3, "2027-01-15T07:59:50Z")
    assert shown(b"short", options) == b""
    with pytest.raises(BadLogOptions):
        log_options({"tailLines": "many"}, 0.0)
    assert log_path(Path("/x"), "c", 2, LogOptions()) == Path("/x/c/2.log")
    assert log_path(Path("/x"), "c", 2, LogOptions(previous=True)) == Path("/x/c/1.log")


def test_exec_protocol_and_status() -> None:
    assert subprotocol(["v4.channel.k8s.io, v5.channel.k8s.io"]) == ("v5.channel.k8s.io",)
    assert subprotocol(["v4.channel.k8s.io"]) == ("v4.channel.k8s.io",)
    assert subprotocol(["channel.k8s.io"]) == ()
    assert final_status(0)["status"] == "Success"
    assert final_status(3)["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
