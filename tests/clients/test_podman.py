"""The real podman 4.3 with its CNI backend on a Towpath network, served by an agent without a cluster."""

import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from podman_host import HOST4, HOST6, OUTSIDE4, OUTSIDE6, PodmanHost, hindrance, podman_host

from towpath.kernel.netns import run_in

pytestmark = [pytest.mark.clients, pytest.mark.skipif(bool(hindrance()), reason=hindrance())]

RANGE4, RANGE6 = ip_network("10.90.0.0/16"), ip_network("fd00:90::/64")


@pytest.fixture(scope="module")
def whole_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodmanHost]:
    with podman_host(tmp_path_factory.mktemp("podman")) as made:
        made.serve(made.outside, 7)
        made.serve(made.netns, 7)
        yield made


@pytest.fixture
def host(whole_host: PodmanHost) -> Iterator[PodmanHost]:
    """Without containers, and afterwards without a trace of those there were."""
    yield whole_host
    if names := whole_host.podman("ps", "-aq").split():
        whole_host.podman("rm", "-f", "-t0", *names)
    assert whole_host.leftovers() == []


def udp(host: PodmanHost, address: str, port: int) -> str:
    """Whom a UDP server takes one for that asks from outside."""

    def ask() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(60)
            sock.connect((address, port))
            sock.send(b"?")
            return sock.recv(99).decode().split()[0]

    return run_in(host.outside, ask)


def test_a_container_reaches_the_world_and_the_world_its_port(host: PodmanHost) -> None:
    web = host.start("web", "-p", "8080:7", "-p", "8080:7/udp")
    assert ip_address(web["IPAddress"]) in RANGE4
    assert ip_address(web["GlobalIPv6Address"]) in RANGE6
    assert web["Gateway"] == "169.254.1.1"
    inside = host.inside(web)
    assert inside.links["eth0"].mac == web["MacAddress"]
    global_ones = {a.interface.ip for a in inside.addresses if a.dev == "eth0" and a.scope == "global"}
    assert {str(ip) for ip in global_ones} == {web["IPAddress"], web["GlobalIPv6Address"]}
    # Out, behind the host's addresses; to the host as itself.
    assert host.ask_from("web", OUTSIDE4, 7) == HOST4
    assert host.ask_from("web", OUTSIDE6, 7) == HOST6
    assert host.ask_from("web", HOST4, 7) == web["IPAddress"]
    assert host.ask_from("web", HOST6, 7) == web["GlobalIPv6Address"]
    # In, from outside with the caller's own address, in both families and over UDP.
    assert host.ask(host.outside, HOST4, 8080) == "172.31.0.1"
    assert host.ask(host.outside, HOST6, 8080) == "fd00:31::1"
    assert udp(host, HOST4, 8080) == "172.31.0.1"
    # In, from the host, by 127.0.0.1 and by its own addresses; and the container by its own published port.
    assert host.ask(host.netns, "127.0.0.1", 8080) == HOST4
    assert host.ask(host.netns, HOST4, 8080) == HOST4
    assert host.ask(host.netns, HOST6, 8080) == HOST6
    assert host.ask_from("web", HOST4, 8080)


def test_containers_reach_each_other_as_themselves(host: PodmanHost) -> None:
    one, two = host.start("one", "-p", "127.0.0.1:8081:7"), host.start("two")
    for family in ("IPAddress", "GlobalIPv6Address"):
        assert host.ask_from("one", two[family], 7) == one[family]
        assert host.ask_from("two", one[family], 7) == two[family]
    # Published on one address only.
    assert host.ask(host.netns, "127.0.0.1", 8081)
    assert not host.ask(host.outside, HOST4, 8081)


def test_stopped_it_leaves_nothing_and_started_it_is_back(host: PodmanHost) -> None:
    first = host.start("web", "-p", "8080:7")
    host.podman("stop", "web")
    assert host.leftovers() == []
    assert not host.ask(host.outside, HOST4, 8080)
    host.podman("start", "web")
    second = host.served_by("web")
    assert second["IPAddress"] != first["IPAddress"]  # what was just released comes last
    assert host.ask(host.outside, HOST4, 8080) == "172.31.0.1"
    host.podman("restart", "-t0", "web")
    host.served_by("web")
    assert host.ask(host.outside, HOST4, 8080) == "172.31.0.1"
    assert len(host.leases()) == 2
    host.podman("rm", "-f", "-t0", "web")
    assert host.leftovers() == []
    host.start("web", "-p", "8080:7")  # the same name, the same port
    assert host.ask(host.outside, HOST4, 8080) == "172.31.0.1"


def test_address_mac_and_aliases_asked_for(host: PodmanHost) -> None:
    mac = "02:42:ac:11:00:09"
    web = host.start("web", "--ip=10.90.7.7", f"--mac-address={mac}", "--network-alias=www")
    assert (web["IPAddress"], web["MacAddress"]) == ("10.90.7.7", mac)
    assert host.inside(web).links["eth0"].mac == mac
    both = host.start("both", "--network=towpath:ip=10.90.7.8,ip=fd00:90::7:8,alias=a,alias=b")
    assert (both["IPAddress"], both["GlobalIPv6Address"]) == ("10.90.7.8", "fd00:90::7:8")
    assert host.ask_from("both", "10.90.7.7", 7) == "10.90.7.8"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--ip=10.90.7.7",), "10.90.7.7"),
        (("--ip=10.91.0.1",), "outside the configured ranges"),
        (("-p", "8080:7"), "host port tcp 8080 is taken"),
        (("--network=elsewhere",), "outside of this host's networks"),
        (("--network=towpath", "--network=second"), "one interface of Towpath's"),
    ],
)
def test_what_cannot_be_is_refused_in_words_and_leaves_nothing(
    host: PodmanHost, options: tuple[str, ...], reason: str
) -> None:
    host.network("elsewhere", ipam={"ranges": [[{"subnet": "10.91.0.0/24"}]]})
    host.network("second", ipam={"ranges": [[{"subnet": "10.90.128.0/24"}]]})
    host.start("web", "-p", "8080:7", "--ip=10.90.7.7")
    if not any(option.startswith("--network") for option in options):
        options = ("--network=towpath", *options)
    done = host.run("podman", "run", f"--cgroup-parent=/{host.group}", "--rm", *options, "peer", "/peer")
    assert done.returncode in (126, 127)
    assert reason in done.stderr
    assert host.leases() == ["10.90.7.7", host.network_of("web")["GlobalIPv6Address"]]


def test_a_network_with_a_range_of_its_own(host: PodmanHost) -> None:
    host.network("back", ipam={"subnet": "10.90.129.0/24"})
    back = host.start("back", "--network=back", network="back")
    assert ip_address(back["IPAddress"]) in ip_network("10.90.129.0/24")
    assert not back["GlobalIPv6Address"]
    assert host.ask_from("back", OUTSIDE4, 7) == HOST4
    names = {network["name"] for network in json.loads(host.podman("network", "ls", "--format=json"))}
    assert {"towpath", "back"} <= names


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0"])
def test_older_lists(host: PodmanHost, version: str) -> None:
    host.network("old", version=version)
    old = host.start("old", network="old")
    assert host.ask_from("old", OUTSIDE6, 7) == HOST6
    assert ip_address(old["IPAddress"]) in RANGE4


def test_a_newer_list_than_podman_can_read_leaves_nothing(host: PodmanHost) -> None:
    host.network("new", version="1.1.0")
    with pytest.raises(AssertionError, match="unsupported CNI result version"):
        host.start("new", network="new")
    assert host.leftovers() == []


def test_the_agent_dies_and_comes_back_unnoticed(host: PodmanHost) -> None:
    web = host.start("web", "-p", "8080:7")
    host.stop_agent(signal.SIGKILL)
    assert host.ask(host.outside, HOST4, 8080) == "172.31.0.1"
    assert host.ask_from("web", OUTSIDE4, 7) == HOST4
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(host.start, "late")  # the shim waits for the next agent
        host.start_agent()
        late = waiting.result(240)
    assert host.ask_from("late", web["IPAddress"], 7) == late["IPAddress"]
    assert host.ask(host.outside, HOST4, 8080) == "172.31.0.1"
    host.stop_agent()
    host.start_agent()
    host.podman("rm", "-f", "-t0", "web", "late")
    assert host.leftovers() == []


def test_a_podman_pod_is_one_attachment(host: PodmanHost) -> None:
    infra = ("--infra-image=peer", "--infra-command=/peer serve 9")
    host.podman(
        "pod",
        "create",
        "--name=p",
        "--network=towpath",
        "-p",
        "8080:7",
        f"--cgroup-parent=/{host.group}",
        *infra,
    )
    try:
        host.podman("run", "-d", "--name=in-p", "--pod=p", "peer", "/peer", "serve", "7")
        assert len(host.leases()) == 2
        host.until(lambda: host.ask(host.outside, HOST4, 8080) == "172.31.0.1")
        assert host.ask_from("in-p", "127.0.0.1", 9) == "127.0.0.1"
    finally:
        host.podman("pod", "rm", "-f", "-t0", "p")
    assert host.leftovers() == []


def test_in_the_place_of_bridge_in_debians_own_list(host: PodmanHost) -> None:
    others: list[dict[str, Any]] = [
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall"},
        {"type": "tuning"},
    ]
    host.network("chained", *others, capabilities={"ips": True, "mac": True})
    mac = "02:42:ac:11:00:07"  # which tuning sets again
    web = host.start("web", "-p", "8080:7", f"--mac-address={mac}", network="chained")
    assert host.inside(web).links["eth0"].mac == web["MacAddress"] == mac
    assert host.ask(host.outside, HOST4, 8080) == "172.31.0.1"
    assert host.ask(host.netns, "127.0.0.1", 8080)
    assert host.ask_from("web", OUTSIDE4, 7) == HOST4
    assert host.ask_from("web", OUTSIDE6, 7) == HOST6
    host.podman("stop", "web")
    assert host.leftovers() == []
    assert not host.ask(host.outside, HOST4, 8080)
    assert web["IPAddress"] not in host.run("iptables-save").stdout
