"""The manifests: the file is what the program renders, and what they grant is what the agent uses."""

import asyncio
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import towpath
from towpath.agent.config import load
from towpath.agent.metrics import Metrics
from towpath.agent.network_definitions import DEFINITIONS, NetworkDefinitions
from towpath.agent.policy_conditions import GROUP
from towpath.agent.surroundings import Cluster
from towpath.api.netconf import parse_net_conf
from towpath.cli.install import command
from towpath.install import configuration
from towpath.install.compare import differences
from towpath.install.render import RULES, render, to_yaml
from towpath.install.values import Values, ValuesError, values
from towpath.kube.client import Client
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import IP_RESERVATIONS
from towpath.multinet.confine import Confinement
from towpath.policy.sources import SECONDARY, SOURCES

MANIFESTS = Path(__file__).parents[2] / "manifests" / "towpath.yaml"
SOURCE = Path(towpath.__file__).parent
CORE = ("nodes", "pods", "namespaces", "serviceaccounts", "endpointslices")
NET_CONF = '{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan"}}'
BOTH = {"cluster_cidrs": ["10.42.0.0/16", "fd00:10:42::/56"]}


def test_the_folder_has_what_is_rendered() -> None:
    done = CliRunner().invoke(command, ["render"])
    assert done.exit_code == 0
    assert MANIFESTS.read_text() == done.output, "run: towpath install render > manifests/towpath.yaml"
    assert list(yaml.safe_load_all(done.output)) == list(render(Values()))


def test_the_configuration_is_what_the_agent_accepts(tmp_path: Path) -> None:
    chosen = values({**BOTH, "backend": "vxlan", "direct_routing": True, "agent": {"log_level": "debug"}})
    network = parse_net_conf(configuration.net_conf(chosen))
    assert (str(network.ipv4), str(network.ipv6)) == tuple(BOTH["cluster_cidrs"])
    (tmp_path / "net-conf.json").write_text(configuration.net_conf(chosen))
    config = {**configuration.agent_config(chosen), "net_conf": str(tmp_path / "net-conf.json")}
    (tmp_path / "agent.yaml").write_text(yaml.safe_dump(config))
    settings = load({"config": str(tmp_path / "agent.yaml")}, {"TOWPATH_NODE_NAME": "n1"})
    assert (settings.run_as_uid, settings.run_as_gid) == (chosen.uid, chosen.gid)
    assert settings.log_level == "debug"


async def test_rights_are_those_the_agent_uses() -> None:
    text = "".join(path.read_text() for path in (SOURCE / "agent").glob("*.py"))
    calls = {(found[2].lower(), found[1]) for found in re.finditer(r"client\.(\w+)\(\s*([A-Z]+)\b", text)}
    places = {
        ("nodes", "patch"): ("", "nodes/status"),
        ("pods", "patch"): ("", "pods/status"),
        ("definitions", "get"): (DEFINITIONS.group, DEFINITIONS.plural),
    }
    used = {(*places.get((kind, verb), ("", kind)), verb) for kind, verb in calls}
    used |= {(GROUP, f"{s.plural}/status", "patch") for s in SOURCES if s.group == GROUP}
    used |= await followed()
    granted = {
        (group, kind, verb)
        for rule in RULES
        for group in rule["apiGroups"]
        for kind in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == used


def test_rights_of_block_mode_are_granted_only_there() -> None:
    def granted(agent: dict[str, str]) -> set[tuple[str, str]]:
        role = next(o for o in render(values({**BOTH, "agent": agent})) if o["kind"] == "ClusterRole")
        rules = [r for r in role["rules"] if r["apiGroups"] == ["crd.projectcalico.org"]]
        return {(kind, verb) for r in rules for kind in r["resources"] for verb in r["verbs"]}

    every = ("get", "list", "watch", "create", "update", "delete")
    written = {(p, v) for p in ("blockaffinities", "ipamblocks") for v in every}
    written |= {("ipamhandles", v) for v in ("get", "create", "update", "delete")}
    read = {(p, v) for p in ("ippools", "ipamconfigs") for v in ("list", "watch")}
    assert granted({"ipam_mode": "blocks"}) - granted({}) == written | read


def test_rights_of_towpath_ipam_are_granted_where_it_is_asked_for() -> None:
    def granted(agent: dict[str, bool]) -> set[tuple[str, str]]:
        role = next(o for o in render(values({**BOTH, "agent": agent})) if o["kind"] == "ClusterRole")
        rules = [r for r in role["rules"] if r["apiGroups"] == ["ipam.towpath.dev"]]
        return {(kind, verb) for r in rules for kind in r["resources"] for verb in r["verbs"]}

    assert granted({}) == granted({"network_ipam": False}) == set()
    assert ("networkblocks", "update") in granted({"network_ipam": True})
    assert ("networkblockhandles", "list") not in granted({"network_ipam": True})


async def followed() -> set[tuple[str, str, str]]:
    """Group, kind and verb of what an agent asks of a server that has everything, Calico in either group."""
    found: set[tuple[str, str, str]] = set()
    for left_out in ("projectcalico.org", "crd.projectcalico.org"):
        api = await FakeApiServer.start()
        for source in SOURCES:
            if source.group != left_out:
                api.served.setdefault((source.group, source.versions[0]), []).append(source.plural)
        calico = IP_RESERVATIONS.group, IP_RESERVATIONS.version
        api.served.setdefault(calico, []).append(IP_RESERVATIONS.plural)
        api.served[DEFINITIONS.group, DEFINITIONS.version] = [DEFINITIONS.plural]
        api.served[SECONDARY.group, SECONDARY.versions[0]] = [SECONDARY.plural]
        kinds = {source.plural for source in SOURCES if source.group != left_out}
        settings = load({"node_name": "n1", "net_conf": NET_CONF}, {})
        async with Client(api.config()) as client:
            cluster = Cluster(settings, parse_net_conf(NET_CONF), client, Metrics(), *[lambda *_: None] * 3)
            networks = NetworkDefinitions(client, 90, Path("/etc/cni/net.d"), Confinement())
            assert cluster.network_policies is not None
            parts = *cluster.parts(tuple), networks.run(), cluster.network_policies.run()
            tasks = [asyncio.create_task(part) for part in parts]
            await asyncio.wait_for(api.watched(len(kinds) + len(CORE) + 3), 60)
            assert cluster.known
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        found |= {asked for method, target in api.requests if (asked := question(method, target))}
        await api.down()
    return found


def question(method: str, target: str) -> tuple[str, str, str] | None:
    path, _, query = target.partition("?")
    match path.strip("/").split("/"):
        case ["api", "v1", plural]:
            return "", plural, "watch" if "watch=" in query else "list"
        case ["apis", group, _, plural]:
            return group, plural, "watch" if "watch=" in query else "list"
    assert method == "GET"
    assert path.startswith("/apis")  # discovery, which everybody may
    return None


def test_the_agent_is_bounded() -> None:
    pod = render(Values())[-1]["spec"]["template"]["spec"]
    for container in (*pod["initContainers"], *pod["containers"]):
        security = container["securityContext"]
        assert security["capabilities"]["drop"] == ["ALL"]
        assert security["readOnlyRootFilesystem"]
        assert "privileged" not in security
    installer, agent = (pod[name][0]["securityContext"] for name in ("initContainers", "containers"))
    assert installer["capabilities"] == {"drop": ["ALL"]}
    assert not installer["allowPrivilegeEscalation"]
    assert agent["capabilities"]["add"] == ["NET_ADMIN"]
    assert agent["runAsNonRoot"] and agent["runAsUser"] == Values().uid
    assert agent["allowPrivilegeEscalation"], "else the launcher's file capability would not count"
    assert pod["containers"][0]["command"][0] == "/usr/bin/towpath-launch"
    assert not pod.get("hostPID")


def test_only_the_agent_has_a_token() -> None:
    pod = render(Values())[-1]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert "token" in {m["name"] for m in pod["containers"][0]["volumeMounts"]}
    assert "token" not in {m["name"] for m in pod["initContainers"][0]["volumeMounts"]}


def test_towpath_ns_is_there_for_those_who_want_it_and_has_no_token() -> None:
    assert [one["metadata"]["name"] for one in render(Values()) if one["kind"] == "DaemonSet"] == ["towpath"]
    found = [one for one in render(Values(helper=True, cni_bin="/bin/cni")) if one["kind"] == "DaemonSet"]
    assert [one["metadata"]["name"] for one in found] == ["towpath", "towpath-ns"]
    spec = found[1]["spec"]["template"]["spec"]
    assert not spec["automountServiceAccountToken"]
    assert "serviceAccountName" not in spec
    [container] = spec["containers"]
    assert container["args"] == ["--root=/host", "--plugins=/bin/cni"]
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]


def test_another_configuration_rolls_the_daemonset() -> None:
    one, other = (render(values({"vni": vni}))[-1]["spec"]["template"] for vni in (1, 2))
    assert one["metadata"]["annotations"] != other["metadata"]["annotations"]
    assert to_yaml(render(Values())) == to_yaml(render(Values()))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cluster_cidrs": ["10.42.0.1/16"]}, "host bits"),
        ({"cluster_cidrs": ["10.42.0.0/16", "10.43.0.0/16"]}, "one network a family"),
        ({"cluster_cidrs": []}, "one network a family"),
        ({"uid": 65534}, "user of its own"),
        ({"gid": 0}, "group of its own"),
        ({"vni": 0}, "vni"),
        ({"backend": "wireguard"}, "backend"),
        ({"image": "towpath"}, "tag or a digest"),
        ({"state": "var/lib"}, "absolute"),
        ({"run": "/run/../etc"}, "absolute"),
        ({"conflist": "../x.conflist"}, "file name"),
        ({"no_such": 1}, "no_such"),
        ([1], "object"),
    ],
)
def test_bad_values(given: object, said: str) -> None:
    with pytest.raises(ValuesError, match=said):
        values(given)


def test_bad_values_file(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("vni: [")
    done = CliRunner().invoke(command, ["render", "--values", str(file)])
    assert "values.yaml" in str(done.exception)


def test_differences_are_named() -> None:
    wanted = {"a": 1, "list": [{"name": "x", "v": 1}, {"name": "y"}], "plain": [1, 2], "empty": []}
    there = {"a": 2, "list": [{"name": "x", "v": 1, "extra": 0}, {"name": "z"}], "plain": [1], "status": {}}
    assert differences(wanted, wanted | {"status": 1}) == []
    assert differences(wanted, there) == [
        "a is 2 instead of 1",
        "list[y] is missing",
        "list[z] is not rendered",
        "plain is [1] instead of [1, 2]",
    ]
