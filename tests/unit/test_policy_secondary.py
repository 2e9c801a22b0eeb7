"""MultiNetworkPolicy: which networks a policy is for, pods as a network has them, and the pod's own table."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from towpath.cli.exit import CliError
from towpath.cli.policy import command
from towpath.desired.pod_table import NOTHING, pod_table, table_name
from towpath.model.policy import Program
from towpath.policy.engine import Engine
from towpath.policy.secondary import (
    NETWORK_STATUS,
    POLICY_FOR,
    addresses_in,
    convert,
    networks_of,
    raw_in_network,
)
from towpath.policy.world import assemble

STORAGE = "default/storage"


def pod(name: str, ip: str, *in_storage: str, **labels: str) -> dict[str, Any]:
    status = [{"name": "towpath", "interface": "eth0", "ips": [ip], "default": True}]
    status += [{"name": STORAGE, "interface": "net1", "ips": list(in_storage)}] if in_storage else []
    annotations = {NETWORK_STATUS: json.dumps(status)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels, "annotations": annotations},
        "spec": {"nodeName": "n1"},
        "status": {"podIP": ip, "podIPs": [{"ip": ip}], "phase": "Running"},
    }


def policy(name: str, annotation: object = "storage", **spec: Any) -> dict[str, Any]:
    spec = {"podSelector": {"matchLabels": {"app": "disk"}}, **spec}
    annotations = {} if annotation is None else {POLICY_FOR: annotation}
    return {
        "apiVersion": "k8s.cni.cncf.io/v1beta1",
        "kind": "MultiNetworkPolicy",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": spec,
    }


PODS = [
    pod("disk", "10.0.0.1", "10.9.0.1", "fd09::1", app="disk"),
    pod("backup", "10.0.0.2", "10.9.0.2", "fd09::2", app="backup"),
    pod("web", "10.0.0.3", app="web"),
]
FROM_BACKUP = policy(
    "p",
    policyTypes=["Ingress"],
    ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "backup"}}}], "ports": [{"port": 3260}]}],
)


@pytest.mark.parametrize(
    ("annotation", "named", "strange"),
    [
        ("storage", ("default/storage",), ()),
        (" a , other/b,a,", ("default/a", "other/b"), ()),
        ("a/b/c, x", ("default/x",), ("a/b/c",)),
        ("/x", (), ("/x",)),
        ("", (), ()),
        (None, (), ()),
        (7, (), ()),
    ],
)
def test_networks_that_a_policy_is_for(
    annotation: object, named: tuple[str, ...], strange: tuple[str, ...]
) -> None:
    raw = policy("p", annotation)
    assert networks_of(raw) == (named, strange)
    assert [f.code for f in convert(raw).findings] == ([] if named and not strange else ["TP5138"])


def test_a_policy_that_cannot_be_read_allows_nothing() -> None:
    found = convert(policy("p", podSelector={"matchLabels": 1}, ingress=[{}]))
    assert [f.code for f in found.findings] == ["TP5002"]
    [one] = found.policies
    assert (one.kind, one.ingress) == ("MultiNetworkPolicy", ())


def test_pods_addresses_by_network() -> None:
    texts = [
        {"name": "storage", "ips": ["10.9.0.1"]},
        {"name": STORAGE, "ips": ["10.9.0.9"]},
        {"name": "towpath", "ips": ["10.0.0.1"], "default": True},
        {"name": "kube-system/instead", "ips": ["10.5.0.1"], "default": True},
    ]
    found = addresses_in({NETWORK_STATUS: json.dumps(texts)}, "default")
    assert found == {STORAGE: ("10.9.0.1", "10.9.0.9"), "kube-system/instead": ("10.5.0.1",)}
    for odd in ("", "{", "[1]", '{"name": "x"}', '[{"name": 1}]'):
        assert addresses_in({NETWORK_STATUS: odd}, "default") == {}
    assert addresses_in(None, "default") == {}


@given(
    st.recursive(st.none() | st.booleans() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c))
)
def test_no_object_is_too_odd(junk: Any) -> None:
    raw = {**PODS[0], "metadata": junk}
    assert raw_in_network(raw, STORAGE) is None
    networks_of(raw)
    convert(raw)


def test_the_pod_network_knows_nothing_of_it() -> None:
    world = assemble([*PODS, FROM_BACKUP]).world
    assert world.policies == ()
    assert [str(endpoint.addresses[0]) for endpoint in world.endpoints] == [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
    ]


def test_the_table_is_whole() -> None:
    """Whatever a chain or a map refers to is there, and of other pods' chains there is none."""
    engine = Engine()
    engine.load(assemble([*PODS, FROM_BACKUP], network=STORAGE).world)
    engine.set_local({"disk": "Pod/default/disk", "backup": "Pod/default/backup"})
    program = engine.program()
    table = pod_table("net1", program, (program.from_pod["disk"], program.to_pod["disk"]), "free")
    texts = [rule for chain in table.chains.values() for rule in chain.rules]
    texts += [str(d[0]) for s in table.sets.values() if s.data == ("verdict",) for d in s.elements.values()]
    for text in texts:
        words = text.split()
        for before, name in pairwise(words):
            assert before not in ("goto", "jump") or name in table.chains
        assert all(word[1:] in table.sets for word in words if word.startswith("@"))
    assert {str(key[0]) for key in table.sets["class4"].elements} == {"10.9.0.2"}
    other = pod_table("net1", program, (program.from_pod["backup"], program.to_pod["backup"]), "free")
    assert not any(name.startswith(("pi-", "pe-", "cs-")) for name in other.chains)


def test_what_is_not_known_gets_nothing_through() -> None:
    chains = pod_table("net1", Program(), NOTHING, "own").chains
    assert [chains[name].rules[-1] for name in ("sending", "receiving", "denied")] == [
        "goto denied",
        "goto denied",
        "counter drop",
    ]


def test_tables_are_named_for_interfaces() -> None:
    assert table_name("net1") == "towpath_net1"
    odd = [table_name(name) for name in ("net.1", "net-1", "nét", "a@b")]
    assert len(set(odd)) == 4
    assert all(name.removeprefix("towpath_").isalnum() for name in odd)


def asked(tmp_path: Path, *args: str, files: list[dict[str, Any]]) -> tuple[int, str]:
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump_all(files))
    result = CliRunner().invoke(command, [*args, "-f", str(path)])
    if isinstance(result.exception, CliError):
        return result.exception.exit_code, str(result.exception)
    return result.exit_code, result.output


def test_the_command_line_asks_about_a_network(tmp_path: Path) -> None:
    files = [*PODS, FROM_BACKUP]
    there = "--network", "storage"
    code, text = asked(tmp_path, "explain", "backup", "disk", "--port", "3260", *there, files=files)
    assert (code, "10.9.0.2" in text, "fd09::2" in text, "MultiNetworkPolicy/default/p" in text) == (
        0,
        *[True] * 3,
    )
    assert asked(tmp_path, "explain", "backup", "disk", *there, files=files)[0] == 3
    code, text = asked(tmp_path, "explain", "web", "disk", *there, files=files)
    assert (code, "Pod/default/web has no address in network default/storage" in text) == (2, True)
    assert asked(tmp_path, "explain", "backup", "disk", files=files)[0] == 0  # the pod network
    assert "tcp 3260" in asked(tmp_path, "matrix", *there, files=files)[1]
    code, text = asked(tmp_path, "check", files=[*PODS, policy("p", "a/b/c")])
    assert (code, "TP5138" in text) == (3, True)


def test_pods_that_never_ran_are_in_the_networks_they_ask_for(tmp_path: Path) -> None:
    files = [*PODS, FROM_BACKUP]
    for one in files[:2]:
        files[files.index(one)] = new = {**one}
        del new["status"]
        new["metadata"] = {**one["metadata"], "annotations": {"k8s.v1.cni.cncf.io/networks": "storage"}}
    code, _ = asked(
        tmp_path, "explain", "backup", "disk", "--port", "3260", "--network", STORAGE, files=files
    )
    assert code == 0
    assert asked(tmp_path, "explain", "backup", "disk", "--network", STORAGE, files=files)[0] == 3
    files[0]["metadata"]["annotations"] = {"k8s.v1.cni.cncf.io/networks": "[{"}
    code, text = asked(tmp_path, "matrix", "--network", STORAGE, files=files)
    assert (code, "Pod/default/disk" in text) == (2, True)


def test_a_change_is_told_before_it_is_made(tmp_path: Path) -> None:
    before, after = tmp_path / "before.yaml", tmp_path / "after.yaml"
    before.write_text(yaml.safe_dump_all([*PODS, FROM_BACKUP]))
    after.write_text(yaml.safe_dump_all([*PODS, policy("p", policyTypes=["Ingress"])]))
    args = ["diff", str(before), str(after)]
    result = CliRunner().invoke(command, [*args, "--network", STORAGE])
    assert (result.exit_code, "- tcp 3260" in result.output) == (3, True)
    assert CliRunner().invoke(command, args).exit_code == 0
