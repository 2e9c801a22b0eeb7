"""Definitions, confinement, the choice of networks, what plugins are given, and the status annotation."""

import json
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

from towpath.api.meta import ObjectMeta
from towpath.api.networks import RESOURCE_NAME, NetworkAttachmentDefinition, NetworkSpec
from towpath.cni.result import Dns, Interface, IPConfig, Result, RouteConf
from towpath.multinet.annotation import DEFAULT_NETWORK, NETWORKS, selections
from towpath.multinet.choose import Choice, NetworkSettings, choose, cluster_wide
from towpath.multinet.confine import TYPES, Confinement
from towpath.multinet.definition import Definition, definition
from towpath.multinet.derive import call, environment, stdin
from towpath.multinet.devices import with_devices
from towpath.multinet.refusal import NetworkRefused
from towpath.multinet.status import Attached, network_status

MACVLAN = {"cniVersion": "1.0.0", "type": "macvlan", "master": "eth0"}


def nad(
    name: str, config: Any = None, namespace: str = "default", **annotations: str
) -> NetworkAttachmentDefinition:
    text = config if isinstance(config, str) else json.dumps(config) if config is not None else ""
    meta = ObjectMeta(name=name, namespace=namespace, annotations=annotations)
    return NetworkAttachmentDefinition(metadata=meta, spec=NetworkSpec(config=text))


def read(
    name: str, config: Any = None, confinement: Confinement | None = None, **annotations: str
) -> Definition:
    return definition(nad(name, config, **annotations), confinement or Confinement())


def refused(*arguments: Any, **more: Any) -> tuple[str, str]:
    with pytest.raises(NetworkRefused) as caught:
        read(*arguments, **more)
    return caught.value.code, str(caught.value)


BRIDGE = """{
    "cniVersion": "0.3.0",
    "name": "a-bridge-network",
    "type": "bridge",
    "bridge": "br0",
    "isGateway": true,
    "ipam": {
      "type": "host-local",
      "subnet": "192.168.5.0/24",
      "dataDir": "/mnt/cluster-ipam"
    }
}"""
LIST = """{
  "cniVersion": "0.3.0",
  "name": "another-bridge-network",
  "plugins": [
    {"type": "bridge", "bridge": "br0", "ipam": {"type": "host-local", "subnet": "192.168.5.0/24"}},
    {"type": "port-forwarding"},
    {"type": "tuning", "sysctl": {"net.ipv4.conf.all.log_martians": "1"}}
  ]
}"""


def test_the_standards_definitions() -> None:
    """3.2.1 to 3.2.3, and 3.4.2.1: the object's name where the configuration has none."""
    code, message = refused("a-bridge-network", BRIDGE)
    assert code == "TP6008"
    assert "ipam.dataDir: '/mnt/cluster-ipam'" in message
    mounted = Confinement(paths=("/mnt/cluster-ipam",))
    one = read("a-bridge-network", BRIDGE, mounted)
    assert (one.network, one.version, one.types) == ("a-bridge-network", "0.3.0", ("bridge",))
    assert refused("another-bridge-network", LIST)[0] == "TP6008"
    with_forwarding = Confinement(types=(*TYPES, "port-forwarding", "awesome-plugin"))
    assert read("another-bridge-network", LIST, with_forwarding).types == (
        "bridge",
        "port-forwarding",
        "tuning",
    )
    thick = read("a-bridge-network", '{"cniVersion": "0.3.0", "type": "awesome-plugin"}', with_forwarding)
    [selection] = selections("a-bridge-network")
    assert json.loads(stdin(call(thick, selection, "net1", {}), thick.plugins[0])) == {
        "cniVersion": "0.3.0",
        "name": "a-bridge-network",
        "type": "awesome-plugin",
    }


def test_without_a_configuration_the_nodes_is_taken_by_name() -> None:
    """3.2.4, 3.4.1."""
    found = definition(nad("on-disk"), Confinement(), {"on-disk": json.dumps(MACVLAN).encode()}.get)
    assert (found.network, found.types) == ("on-disk", ("macvlan",))
    code, message = refused("a-bridge-network")
    assert code == "TP6004"
    assert "no node's configuration is named a-bridge-network" in message


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ({"type": ""}, "no type"),
        ({"type": "../x"}, "no plugin's name"),
        ({"plugins": []}, "plugins"),
        ({"plugins": [1]}, r"plugins[0] is not an object"),
        ({"plugins": [{"type": "tuning"}, {}]}, "plugins[1] has no type"),
        ({"type": "macvlan", "cniVersion": "9.9.9"}, "9.9.9"),
        ({"type": "macvlan", "cniVersion": 1}, "cniVersion"),
        ({"type": "macvlan", "name": "a/b"}, "no network name"),
        ({"type": "macvlan", "ipam": []}, "ipam is not an object"),
        ({"type": "macvlan", "disableGC": "maybe"}, "neither true nor false"),
    ],
)
def test_configurations_that_cannot_be_used(config: Any, words: str) -> None:
    code, message = refused("net", config)
    assert code == "TP6004"
    assert "NetworkAttachmentDefinition default/net" in message
    assert words in message


def test_the_highest_version_we_speak_and_keys_in_any_case() -> None:
    config = {
        "cniVersion": "0.4.0",
        "cniVersions": ["1.0.0", "1.1.0", "2.0.0"],
        "Plugins": [{"Type": "tuning"}],
    }
    found = read("n", {**config, "disableCheck": "true", "disableGC": True})
    assert (found.version, found.types, found.disable_check, found.disable_gc) == (
        "1.1.0",
        ("tuning",),
        True,
        True,
    )
    assert read("n", {"type": "tuning"}).version == "0.1.0"


@pytest.mark.parametrize(
    "plugin",
    [
        {"type": "evil"},
        {"type": "macvlan", "ipam": {"type": "evil"}},
        {"type": "bridge", "delegate": {"type": "evil"}},
        {"type": "macvlan", "ipam": {"type": "host-local", "dataDir": "/etc/cron.d"}},
        {"type": "macvlan", "ipam": {"type": "host-local", "dataDir": "/var/lib/cni/../../../etc"}},
        {"type": "macvlan", "ipam": {"type": "host-local", "dataDir": "/var/lib/cnix"}},
        {"type": "macvlan", "ipam": {"type": "host-local", "dataDir": "etc"}},
        {
            "type": "macvlan",
            "ipam": {"type": "whereabouts", "kubernetes": {"kubeconfig": "/root/.kube/config"}},
        },
        {"type": "macvlan", "list": ["a", {"b": "/etc/passwd"}]},
        {"type": "macvlan", "anything": "../../x"},
    ],
)
def test_confinement(plugin: dict[str, Any]) -> None:
    assert refused("net", {"cniVersion": "1.0.0", "plugins": [plugin]})[0] == "TP6008"


def test_what_is_allowed() -> None:
    ipam = {
        "type": "host-local",
        "dataDir": "/var/lib/cni/networks/x",
        "ranges": [[{"subnet": "10.0.0.0/24"}]],
    }
    assert read("net", {**MACVLAN, "ipam": ipam}).types == ("macvlan",)


# The choice.

CONFIGS: dict[tuple[str, str], Any] = {
    ("default", "a"): MACVLAN,
    ("default", "b"): {**MACVLAN, "capabilities": {"portMappings": True, "ips": True}},
    ("other", "c"): MACVLAN,
    ("kube-system", "wide"): MACVLAN,
    ("kube-system", "main"): {"cniVersion": "1.0.0", "type": "ptp"},
}


def lookup(namespace: str, name: str) -> Definition:
    if (namespace, name) not in CONFIGS:
        raise NetworkRefused("TP6002", f"network {namespace}/{name}", "it is unknown", "create it")
    return definition(nad(name, CONFIGS[namespace, name], namespace), Confinement())


def chosen(asked: str = "", namespace: str = "default", override: str = "", **settings: Any) -> Choice:
    annotations = {NETWORKS: asked, DEFAULT_NETWORK: override}
    return choose(namespace, annotations, NetworkSettings(**settings), lookup)


def names(choice: Choice) -> list[tuple[str, str]]:
    return [(one.definition.reference, one.ifname) for one in choice.all]


def code_of(*arguments: Any, **more: Any) -> str:
    with pytest.raises(NetworkRefused) as caught:
        chosen(*arguments, **more)
    return caught.value.code


def test_interfaces_are_numbered_as_multus_numbers_them() -> None:
    assert names(chosen("a,b@data0,other/c")) == [
        ("default/a", "net1"),
        ("default/b", "data0"),
        ("other/c", "net3"),
    ]
    with_general = chosen("a,a", defaults=("wide",))
    assert names(with_general) == [("kube-system/wide", "net1"), ("default/a", "net2"), ("default/a", "net3")]
    assert chosen() == Choice()


def test_system_namespaces_get_no_cluster_wide_networks() -> None:
    assert names(chosen("", "kube-system", defaults=("wide",))) == []
    assert names(chosen("", "default", defaults=("wide",))) == [("kube-system/wide", "net1")]
    assert cluster_wide(NetworkSettings(defaults=("wide", "other/c"))) == (
        ("kube-system", "wide"),
        ("other", "c"),
    )


def test_the_default_network_can_be_another() -> None:
    choice = chosen("a", override="main")
    assert names(choice) == [("kube-system/main", "eth0"), ("default/a", "net1")]
    assert choice.instead is not None
    assert code_of(override="absent") == "TP6002"


def test_isolation() -> None:
    assert code_of("other/c", isolation=True) == "TP6003"
    assert names(chosen("default/a", "other", isolation=True)) == [("default/a", "net1")]
    assert code_of("default/a", "other", isolation=True, global_namespaces=()) == "TP6003"
    assert names(chosen("a", isolation=True)) == [("default/a", "net1")]


def test_what_cannot_be_chosen() -> None:
    assert code_of("a,absent") == "TP6002"
    assert code_of("a@net2,b") == "TP6005"
    assert code_of("a@eth0") == "TP6005"
    assert code_of("a@x,b@x") == "TP6005"
    port = '"portMappings": [{"hostPort": 1, "containerPort": 1}]'
    assert code_of(f'[{{"name": "a", {port}}}]') == "TP6007"
    assert names(chosen(f'[{{"name": "b", {port}}}]')) == [("default/b", "net1")]
    assert code_of('[{"name": "a", "bandwidth": {"ingressRate": 1}}]') == "TP6007"
    two = '[{"name": "a", "default-route": ["10.0.0.1"]}, {"name": "b", "default-route": ["10.0.1.1"]}]'
    assert code_of(two) == "TP6011"
    assert code_of('[{"name": "a", "cni-args": {"file": "/etc/shadow"}}]') == "TP6008"


def test_every_plugin_of_a_network_with_a_device_is_told_which() -> None:
    def with_resource(namespace: str, name: str) -> Definition:
        return definition(nad(name, MACVLAN, namespace, **{RESOURCE_NAME: "intel.com/sriov"}), Confinement())

    wanted = choose("default", {NETWORKS: "x"}, NetworkSettings(), with_resource).beside
    [one] = with_devices(wanted, {"intel.com/sriov": ["0000:03:02.3"]})
    made = call(one.definition, one.selection, "net1", {})
    config = json.loads(stdin(made, made.plugins[0]))
    assert config["deviceID"] == config["pciBusID"] == "0000:03:02.3"


# What plugins are given.


def test_requests_reach_plugins_as_the_standard_and_libcni_have_it() -> None:
    """4.1.2.1.3.2, 4.1.2.1.4.2; runtimeConfig is what is asked for and declared."""
    plain, capable = (
        {"type": "macvlan"},
        {"type": "tuning", "capabilities": {"mac": True, "ips": True, "dns": True}},
    )
    config = {"cniVersion": "1.0.0", "plugins": [{**plain, "args": {"cni": {"x": 1}, "y": 2}}, capable]}
    [selection] = selections(
        '[{"name":"n","ips":["10.2.2.42","2001:db8::5"],"mac":"02:23:45:67:89:01","cni-args":{"z":3}}]'
    )
    env = {
        "CNI_CONTAINERID": "c",
        "CNI_NETNS": "/ns",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=p",
        "CNI_PATH": "/a:/b",
    }
    one = call(read("n", config), selection, "net1", env)
    asked = {"ips": ["10.2.2.42", "2001:db8::5"], "mac": "02:23:45:67:89:01"}
    first, second = (json.loads(stdin(one, plugin, {"ips": []})) for plugin in one.plugins)
    assert first == {
        "cniVersion": "1.0.0",
        "name": "n",
        "type": "macvlan",
        "args": {"cni": {"x": 1, **asked, "z": 3}, "y": 2},
        "prevResult": {"ips": []},
    }
    assert second["runtimeConfig"] == asked
    assert environment(one, "ADD", ("/now",)) == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c",
        "CNI_NETNS": "/ns",
        "CNI_IFNAME": "net1",
        "CNI_PATH": "/now",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=p;IP=10.2.2.42,2001:db8::5;MAC=02:23:45:67:89:01",
    }
    assert environment(one, "DEL", ("/now",), "")["CNI_NETNS"] == ""
    assert call(read("n", config), selection, "net1", {}).args.startswith("IgnoreUnknown=1;IP=")


# The status.


def test_the_status_is_taken_from_the_first_interface_in_the_sandbox() -> None:
    """5.1.1, 5.3; addresses of other interfaces are not the pod's."""
    default = Result(
        interfaces=(
            Interface(name="cali1"),
            Interface(name="eth0", mac="02:00:00:00:00:01", mtu=1450, sandbox="/ns"),
        ),
        ips=(IPConfig(address=ip_interface("10.42.0.5/32"), gateway=ip_address("169.254.1.1"), interface=1),),
    )
    routes = [
        RouteConf(dst=ip_interface(f"{n}/0").network, gw=ip_address(gw))
        for n, gw in (("0.0.0.0", "10.1.1.1"),)
    ]
    other = Result(
        interfaces=(Interface(name="br0"), Interface(name="net1", mac="02:00:00:00:00:02", sandbox="/ns")),
        ips=(
            IPConfig(address=ip_interface("10.1.1.1/24"), interface=0),
            IPConfig(address=ip_interface("10.1.1.5/24"), interface=1),
        ),
        routes=tuple(routes),
        dns=Dns(nameservers=("10.1.1.53",), search=("example.com",)),
    )
    bare = Result(ips=(IPConfig(address=ip_interface("10.2.0.9/16")),))
    text = network_status(
        [
            Attached(name="towpath", ifname="eth0", result=default, default=True),
            Attached(name="ns/other", ifname="net1", result=other),
            Attached(name="ns/bare", ifname="net2", result=bare, gateways=("10.2.0.1",)),
        ]
    )
    assert json.loads(text) == [
        {
            "name": "towpath",
            "interface": "eth0",
            "ips": ["10.42.0.5"],
            "mac": "02:00:00:00:00:01",
            "mtu": 1450,
            "default": True,
            "dns": {},
        },
        {
            "name": "ns/other",
            "interface": "net1",
            "ips": ["10.1.1.5"],
            "mac": "02:00:00:00:00:02",
            "default": False,
            "dns": {"nameservers": ["10.1.1.53"], "search": ["example.com"]},
            "gateway": ["10.1.1.1"],
        },
        {
            "name": "ns/bare",
            "interface": "net2",
            "ips": ["10.2.0.9"],
            "default": False,
            "dns": {},
            "gateway": ["10.2.0.1"],
        },
    ]
