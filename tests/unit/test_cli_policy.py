"""``towpath policy`` over files and over a cluster: verdicts, lines, exit codes, wrong input."""

import asyncio
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from towpath.api.inquiry import Enforcement, Found
from towpath.cli.cluster import ClusterOptions
from towpath.cli.exit import CliError
from towpath.cli.policy import command
from towpath.cli.policy_enforced import OnNode
from towpath.cli.policy_explain import as_data, judgements, screen
from towpath.cli.policy_input import Input
from towpath.cli.policy_live import gather
from towpath.cli.policy_pages import edge, graph, heading, html_table, node, page, paragraph
from towpath.kube import fakehttp
from towpath.kube.client import Client
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import NODES, PODS, Kind, Raw
from towpath.policy.calico_order import CALICO_3_32

PODS_YAML = """\
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {}
status: {podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}, creationTimestamp: 2026-01-01T00:00:00Z}
spec:
  containers: [{name: c, ports: [{name: pg, containerPort: 5432}]}]
status: {podIPs: [{ip: 10.0.0.2}, {ip: "fd00::2"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: hosted, namespace: shop}
spec: {hostNetwork: true, nodeName: n1}
status: {podIP: 192.0.2.1}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
"""
POLICY_YAML = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: db
  namespace: shop
spec:
  podSelector:
    matchLabels: {app: db}
  ingress:
    - from:
        - podSelector:
            matchLabels: {app: other}
        - podSelector:
            matchLabels: {app: web}
      ports:
        - port: pg
"""
DENY_YAML = """\
kind: List
apiVersion: v1
items:
  - apiVersion: projectcalico.org/v3
    kind: GlobalNetworkPolicy
    metadata: {name: closed}
    spec:
      order: 1
      selector: all()
      types: [Egress]
      egress:
        - action: Deny
          protocol: TCP
"""
STAGED_YAML = """\
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {name: later}
spec: {selector: app == 'web', types: [Ingress]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pods.yaml").write_text(PODS_YAML)
    (tmp_path / "policy.yml").write_text(POLICY_YAML)
    (tmp_path / "README.md").write_text("no: [yaml")
    return tmp_path


def policy(*args: str | Path, stdin: str = "") -> Result:
    return CliRunner().invoke(command, [str(arg) for arg in args], input=stdin)


def refusal(*args: str | Path, stdin: str = "") -> str:
    """The sentence of a usage error."""
    ended = policy(*args, stdin=stdin)
    assert isinstance(ended.exception, CliError), ended.output
    assert ended.exception.exit_code == 2
    return str(ended.exception)


def data(*args: str | Path) -> Any:
    return json.loads(policy(*args, "-o", "json").stdout)


def test_allowed_names_the_rule_and_its_line(folder: Path) -> None:
    ended = policy("explain", "shop/web", "db", "-n", "shop", "--port", "5432/tcp", "-f", folder)
    assert ended.exit_code == 0
    assert ended.stdout.startswith("ALLOWED  tcp from Pod/shop/web (10.0.0.1) to Pod/shop/db (10.0.0.2)")
    assert "the same: fd00::1 to fd00::2" in ended.stdout
    assert (
        f"allowed by spec.ingress[0].from[1] of NetworkPolicy/shop/db ({folder}/policy.yml:13)"
        in ended.stdout
    )


def test_a_port_may_be_called_by_its_name(folder: Path) -> None:
    assert policy("explain", "shop/web", "shop/db", "--port", "pg", "-f", folder).exit_code == 0
    assert "no port of this name" in refusal("explain", "shop/web", "shop/db", "--port", "x", "-f", folder)


def test_denied_says_every_edit_and_exits_3(folder: Path) -> None:
    (folder / "deny.yaml").write_text(DENY_YAML)
    args = ("explain", "shop/web", "shop/db", "-f", folder)
    ended = policy(*args)
    assert ended.exit_code == 3
    assert ended.stdout.startswith("DENIED")
    found = data(*args)["flows"]
    assert len(found) == 1
    edits = [(edit["kind"], edit["policy"], edit["where"]) for edit in found[0]["edits"]]
    assert edits == [
        ("narrow", "GlobalNetworkPolicy/closed", f"{folder}/deny.yaml:12"),
        ("allow", "GlobalNetworkPolicy/closed", f"{folder}/deny.yaml:11"),
        ("allow", "NetworkPolicy/shop/db", f"{folder}/policy.yml:9"),
    ]
    egress, ingress = found[0]["sides"]
    assert egress["where"] == f"{folder}/deny.yaml:12"
    outcomes = [step["outcome"] for step in ingress["steps"]]
    assert outcomes == ["other direction", "no match", "no match"]
    assert all(step["reasons"] for step in ingress["steps"][1:])


def test_families_are_shown_apart_where_they_differ(folder: Path) -> None:
    peer = {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}
    spec = {"podSelector": {}, "ingress": [peer]}
    raw = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": spec}
    (folder / "policy.yml").write_text(json.dumps({**raw, "metadata": {"name": "v4"}}))
    args = ("explain", "web", "db", "-n", "shop", "-f", folder)
    assert policy(*args).exit_code == 3
    assert [flow["allowed"] for flow in data(*args)["flows"]] == [True, False]


def test_addresses_nodes_and_icmp_are_ends(folder: Path) -> None:
    assert policy("explain", "203.0.113.9", "shop/web", "-f", folder).exit_code == 0
    assert policy("explain", "node/n1", "shop/db", "-f", folder, "--port", "icmp").exit_code == 3
    assert "IP family in common" in refusal("explain", "fd00::9", "node/n1", "-f", folder)


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        ("web", "there is no Pod/default/web; did you mean shop/web?"),
        ("shop/d", "there is no Pod/shop/d; did you mean shop/db?"),
        ("shop/webb", "there is no Pod/shop/webb; did you mean shop/web?"),
        ("web", "there is no Pod/default/web"),
        ("node/n7", "there is no Node/n7; did you mean node/n1?"),
        ("shop/hosted", "is on its node's network: ask for node/n1"),
    ],
)
def test_an_unknown_end_is_named(folder: Path, end: str, sentence: str) -> None:
    assert sentence in refusal("explain", end, "shop/db", "-f", folder)


@pytest.mark.parametrize("port", ["0", "65536", "80/http", "80/", "-1", "٣"])
def test_a_wrong_port_is_refused(folder: Path, port: str) -> None:
    ended = policy("explain", "shop/web", "shop/db", f"--port={port}", "-f", folder)
    if port == "80/":
        assert ended.exit_code == 3  # as 80/tcp
    else:
        assert "--port" in refusal("explain", "shop/web", "shop/db", f"--port={port}", "-f", folder)


def test_what_the_kernel_does_is_a_section_where_there_is_a_kernel(folder: Path) -> None:
    given = Input((str(folder),), False, ClusterOptions("", ""), "shop", CALICO_3_32)
    asked = given.asked(given.objects())
    judged = judgements(asked, "web", "db", "80", "shop")
    assert all("kernel" not in side for side in as_data(asked, judged)["flows"][0]["sides"])
    hit = Found(kind="element", name="pi-1", text="0:1 : goto denied", packets=7, bytes=420)
    kernel = OnNode("n1", Enforcement(allowed=False, hits=(hit,)))
    shown = screen(as_data(asked, judged, lambda flow, side: kernel))
    assert "kernel of n1:\n      element { 0:1 : goto denied } of pi-1 [7 packets, 420 bytes]" in shown
    assert "the kernel denies it" in shown  # what it should allow
    six = OnNode("n1", Enforcement(hits=(Found(kind="rule", name="r", text="t", packets=1, bytes=2),)))
    data = as_data(asked, judged, lambda flow, side: kernel if flow.family == 4 else six)
    assert "fd00::1 to fd00::2:\n      rule of r: t [1 packets, 2 bytes]" in screen(data)
    assert screen(data).count("0:1 : goto denied") == 2  # once a side
    silent = OnNode("n1", Enforcement(problem="its agent sleeps"))
    assert "kernel of n1: its agent sleeps" in screen(as_data(asked, judged, lambda flow, side: silent))


# -- input ----------------------------------------------------------------------------------------------


def test_files_that_are_none(tmp_path: Path) -> None:
    assert "No such file" in refusal("check", "-f", tmp_path / "absent.yaml")
    assert "no .yaml, .yml, .json file" in refusal("check", "-f", tmp_path)
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    assert str(broken) in refusal("check", "-f", broken)
    broken.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in refusal("check", "-f", broken)
    broken.write_text("!!python/object:os.system {}")
    assert "no YAML" in refusal("check", "-f", broken)


def test_what_is_no_object_is_passed_over_aloud(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("\nreplicas: 3\n---\n---\n- a list\n")
    ended = policy("check", "-f", tmp_path)
    assert ended.exit_code == 0
    assert "values.yaml:2 is no Kubernetes object" in ended.stderr
    assert "values.yaml:5 is no Kubernetes object" in ended.stderr


def test_standard_input_is_a_file(folder: Path) -> None:
    ended = policy("explain", "shop/web", "shop/db", "-f", folder, "-f", "-", stdin=DENY_YAML)
    assert ended.exit_code == 3
    assert "(-:12)" in ended.stdout


def test_a_later_file_replaces_an_object_and_says_so(folder: Path, tmp_path: Path) -> None:
    later = tmp_path / "later"
    later.write_text(POLICY_YAML.replace("port: pg", "port: 80"))
    ended = policy("explain", "shop/web", "shop/db", "-f", folder, "-f", later)
    assert ended.exit_code == 0
    again = policy("check", "-f", later, "-f", later)
    assert "replaces" in again.stderr


def test_pods_that_never_ran_get_addresses_and_a_namespace(tmp_path: Path) -> None:
    pods = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}} for name in "ab"]
    (tmp_path / "pods.yaml").write_text(yaml.safe_dump_all(pods))
    ended = policy("explain", "a", "b", "-f", tmp_path)
    assert ended.exit_code == 0
    assert "198.18." in ended.stdout
    assert "2 pods have no address yet" in ended.stderr


def test_keys_with_dots_have_lines_too(tmp_path: Path) -> None:
    text = POLICY_YAML.replace("matchLabels: {app: db}", "matchLabels:\n      a.b/c: [1]")
    (tmp_path / "p.yaml").write_text(text)
    (found,) = data("check", "-f", tmp_path)
    assert (found["code"], found["where"]) == ("TP5002", f"{tmp_path}/p.yaml:9")


# -- check, matrix, diff --------------------------------------------------------------------------------


def test_check_exits_3_and_says_where(folder: Path) -> None:
    found = data("check", "-f", folder)
    assert [(one["code"], one["where"]) for one in found] == [("TP5132", f"{folder}/policy.yml:11")]
    ended = policy("check", "-f", folder)
    assert ended.exit_code == 3
    assert "1 policy: 1 warning" in ended.stdout


def test_check_of_policies_alone_says_what_it_did_not_try(folder: Path) -> None:
    ended = policy("check", "-f", folder / "policy.yml")
    assert ended.exit_code == 0
    assert "no pods are given" in ended.stderr


def test_matrix_in_all_formats(folder: Path) -> None:
    ended = policy("matrix", "-f", folder)
    assert ended.exit_code == 0
    assert "tcp 5432" in ended.stdout
    found = data("matrix", "-f", folder)
    classes = [one for one in found["classes"] if one["family"] == 4]
    names = {m["names"][0]: one["name"] for one in classes for m in one["members"] if "names" in m}
    cell = {"from": names["Pod/shop/web"], "to": names["Pod/shop/db"], "connections": "tcp 5432"}
    assert cell in found["cells"]
    assert not [
        cell for cell in found["cells"] if cell["from"] == cell["to"] and cell["from"] in names.values()
    ]
    dot = policy("matrix", "-f", folder, "-o", "dot").stdout
    assert f'{cell["from"]} -> {cell["to"]} [label="tcp 5432"];' in dot
    told = policy("matrix", "-f", folder, "-o", "html").stdout
    assert told.startswith("<!DOCTYPE html>") and well_formed(told)
    assert '<td class="some">tcp 5432</td>' in told
    assert "src=" not in told and "href=" not in told
    assert drawn(dot)


def test_diff_says_what_changes_and_exits_3(folder: Path, tmp_path: Path) -> None:
    pods, old = folder / "pods.yaml", folder / "policy.yml"
    new = tmp_path / "new.yaml"
    new.write_text(POLICY_YAML.replace("port: pg", "port: 80"))
    same = policy("diff", old, old, "-f", pods)
    assert (same.exit_code, same.stdout) == (0, "nothing changes\n")
    assert policy("diff", old, new, "-f", pods).exit_code == 3
    changes = data("diff", old, new, "-f", pods)["changes"]
    assert {(c["added"], c["removed"]) for c in changes} == {("tcp 80", "tcp 5432")}
    assert {c["from"]["family"] for c in changes} == {4, 6}


def well_formed(page: str) -> bool:
    """Whether every element that is opened is closed in its turn."""
    opened: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            opened.extend([tag] if tag not in ("meta", "br") else [])

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Reader().feed(page)
    return not opened


DOT = re.compile(r'\w+( -> \w+)? \[label="([^"\\]|\\.)*"(, color=\w+, fontcolor=\w+)?\];')


def drawn(text: str) -> list[str]:
    """The nodes and edges of a graph, each of a form that Graphviz reads."""
    first, *lines, last = text.splitlines()
    assert (first, last) == ("digraph policy {", "}")
    assert all(DOT.fullmatch(line.strip()) for line in lines[2:])
    return [line.strip() for line in lines[2:]]


def test_diff_and_explain_as_pages_and_graphs(folder: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.yaml"
    new.write_text(POLICY_YAML.replace("port: pg", "port: 80"))
    changed = ("diff", folder / "policy.yml", new, "-f", folder / "pods.yaml", "-o")
    told = policy(*changed, "html").stdout
    assert well_formed(told) and '<td class="ok">+ tcp 80</td>' in told and "Pod/shop/db" in told
    lines = drawn(policy(*changed, "dot").stdout)
    assert any('[label="+ tcp 80", color=darkgreen' in line for line in lines)
    assert any('[label="- tcp 5432", color=red' in line for line in lines)
    same = policy("diff", new, new, "-f", folder / "pods.yaml", "-o", "html").stdout
    assert well_formed(same) and "nothing changes" in same

    asking = ("explain", "shop/web", "shop/db", "--port", "80", "-f", folder, "-o")
    denied = policy(*asking, "html")
    assert denied.exit_code == 3 and well_formed(denied.stdout)
    assert '<p class="error">DENIED</p>' in denied.stdout and "policy.yml:" in denied.stdout
    assert "<h2>To allow it" not in denied.stdout and "To allow it, all of this:" in denied.stdout
    lines = drawn(policy(*asking, "dot").stdout)
    assert any("ingress of Pod/shop/db" in line and "color=red" in line for line in lines)
    assert "src=" not in told + denied.stdout


def test_what_is_drawn_says_what_it_says_whatever_is_in_it() -> None:
    strange = '<b>"x"\\n</b>'
    assert well_formed(
        page(strange, heading(strange), paragraph(strange), html_table((strange,), [(strange,)]))
    )
    assert drawn(graph([node("a", strange), edge("a", "a", [strange, strange], "red")]))


def test_diff_names_endpoints_on_one_side_only(folder: Path) -> None:
    found = data("diff", folder / "policy.yml", folder)
    assert found["before"] == []
    assert ["Pod/shop/db"] in [place["names"] for place in found["after"]]


def test_staged_policies_are_shown_by_diff_only(folder: Path) -> None:
    (folder / "staged.yaml").write_text(STAGED_YAML)
    args = ("explain", "shop/web", "shop/db", "--port", "5432", "-f", folder)
    assert policy(*args).exit_code == 0
    for where in ((folder,), ("-f", folder)):
        changes = data("diff", "--staged", *where)["changes"]
        assert changes
        assert all(change["added"] == "none" for change in changes)
    (folder / "staged.yaml").unlink()
    ended = policy("diff", "--staged", folder)
    assert ended.exit_code == 0
    assert "no policy is staged" in ended.stderr


@pytest.mark.parametrize("names", [(), ("a",), ("a", "b", "c"), ("--staged", "a", "b")])
def test_diff_wants_two(names: tuple[str, ...]) -> None:
    assert "give two files" in refusal("diff", *names, "-f", ".")


def test_without_pods_nothing_is_certain(tmp_path: Path) -> None:
    for name, port in (("a.yaml", "80"), ("b.yaml", "81")):
        (tmp_path / name).write_text(POLICY_YAML.replace("pg", port))
    ended = policy("diff", tmp_path / "a.yaml", tmp_path / "b.yaml")
    assert ended.exit_code == 6
    assert "no pods are given" in ended.stderr
    assert "no pods are given" in policy("matrix", "-f", tmp_path / "a.yaml", "-o", "yaml").stderr


def test_a_node_reaches_its_own_pods(tmp_path: Path) -> None:
    closed = POLICY_YAML.replace("app: web", "app: none")
    pods = PODS_YAML.replace("spec:\n  containers", "spec:\n  nodeName: n1\n  containers")
    pods = pods.replace("metadata: {name: n1}", "metadata: {name: n1}\nspec: {}")
    (tmp_path / "all.yaml").write_text(f"{pods}---\n{closed}---\n{NODE_2}")
    own = policy("explain", "node/n1", "shop/db", "--port", "5432", "-f", tmp_path)
    assert own.exit_code == 0, own.output
    assert "a node always reaches its own pods" in own.stdout
    other = policy("explain", "node/n2", "shop/db", "--port", "5432", "-f", tmp_path)
    assert other.exit_code == 3


NODE_2 = """\
apiVersion: v1
kind: Node
metadata: {name: n2}
status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}
"""


# -- the cluster ----------------------------------------------------------------------------------------


def kubeconfig(server: str, folder: Path) -> Path:
    file = folder / "kubeconfig.conf"
    cluster = {"name": "c", "cluster": {"server": server}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    config = {"clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {}}]}
    file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "current-context": "c", **config}))
    return file


async def test_the_cluster_with_files_on_top(folder: Path) -> None:
    server = await FakeApiServer.start()
    calico: Kind[Raw] = Kind(plural="tiers", type=dict, group="crd.projectcalico.org", namespaced=False)
    policies: Kind[Raw] = Kind(plural="networkpolicies", type=dict, group="networking.k8s.io")
    server.served = {
        ("networking.k8s.io", "v1"): ["networkpolicies"],
        ("crd.projectcalico.org", "v1"): ["tiers"],
    }
    for raw in yaml.safe_load_all(PODS_YAML.replace("2026-01-01T00:00:00Z", "''")):
        server.put(NODES if raw["kind"] == "Node" else PODS, raw)
    server.put(policies, yaml.safe_load(POLICY_YAML))
    server.put(calico, {"metadata": {"name": "t"}, "spec": {"order": 1}})
    config = kubeconfig(server.config().server, folder)
    cluster = ("--kubeconfig", config)

    def ask() -> None:
        args = ("explain", "shop/web", "shop/db", "--port", "5432", *cluster)
        live = policy(*args)
        assert live.exit_code == 0, (live.output, live.exception)
        assert "allowed by spec.ingress[0].from[1] of NetworkPolicy/shop/db\n" in live.stdout
        assert "kernel: Pod/shop/db is on no node" in live.stdout
        (folder / "policy.yml").write_text(POLICY_YAML.replace("port: pg", "port: 80"))
        on_top = policy(*args, "--live", "-f", folder / "policy.yml")
        assert on_top.exit_code == 3
        assert "policy.yml:13" in on_top.stdout
        assert policy("diff", "live", folder / "policy.yml", *cluster).exit_code == 3
        assert policy("diff", "live", "live", *cluster).exit_code == 0

    await asyncio.to_thread(ask)
    async with Client(server.config()) as client:
        raws, notes = await gather(client)
    assert {raw["kind"] for raw in raws} == {"Pod", "Node", "NetworkPolicy", "Tier"}
    assert notes == []
    await server.down()


class Guarded(FakeApiServer):
    """Whoever asks may not see nodes."""

    async def _answer(self, request: fakehttp.Request) -> fakehttp.Answer:
        if request.path == "/api/v1/nodes":
            return fakehttp.Answer(403, {"kind": "Status", "message": "nodes is forbidden", "code": 403})
        return await super()._answer(request)


async def test_what_may_not_be_read_is_a_note() -> None:
    server = await Guarded.start()
    server.put(PODS, next(yaml.safe_load_all(PODS_YAML)))
    async with Client(server.config()) as client:
        raws, notes = await gather(client)
    await server.down()
    assert [raw["kind"] for raw in raws] == ["Pod"]
    assert len(notes) == 1 and "nodes are left out" in notes[0]


HOST_YAML = """\
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: n1, labels: {role: host}}
spec: {node: n1, interfaceName: eth0, expectedIPs: [192.0.2.1]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: fence}
spec:
  selector: role == 'host'
  applyOnForward: true
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [443]}}
"""
SETTINGS_YAML = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: towpath-config, namespace: kube-system}
data:
  agent.yaml: |
    failsafe_inbound: "tcp:2222"
"""


def test_what_passes_a_nodes_host_endpoint_is_explained(tmp_path: Path) -> None:
    pods, hosts = tmp_path / "pods.yml", tmp_path / "hosts.yml"
    pods.write_text(PODS_YAML.replace("spec: {}", "spec: {nodeName: n1}"))
    hosts.write_text(HOST_YAML)
    files = ("-f", pods, "-f", hosts)
    denied = policy("explain", "203.0.113.1", "shop/web", "--port", "80", *files)
    assert denied.exit_code == 3
    assert (
        "ingress of HostEndpoint/n1, passing through: denied by the default of tier default" in denied.stdout
    )
    assert "add a rule to spec.ingress of GlobalNetworkPolicy/fence" in denied.stdout
    assert policy("explain", "203.0.113.1", "shop/web", "--port", "443", *files).exit_code == 0


AWAY_YAML = """\
apiVersion: v1
kind: Pod
metadata: {name: away, namespace: shop}
spec: {nodeName: n2}
status: {podIPs: [{ip: 10.244.9.9}]}
"""


def test_how_nodes_reach_each_others_pods_is_that_of_the_agents_settings(tmp_path: Path) -> None:
    """The uplink's host endpoint lets nobody pass but to port 443."""
    objects, settings = tmp_path / "objects.yml", tmp_path / "settings.json"
    placed = PODS_YAML.replace("spec: {}", "spec: {nodeName: n1}")
    objects.write_text("---\n".join((placed, HOST_YAML, AWAY_YAML)))

    def explained(port: int, **backend: Any) -> Result:
        conf = json.dumps({"Network": "10.244.0.0/16", "Backend": backend})
        metadata = {"name": "towpath-config", "namespace": "kube-system"}
        config_map = {"kind": "ConfigMap", "metadata": metadata, "data": {"net-conf.json": conf}}
        settings.write_text(json.dumps({"apiVersion": "v1", **config_map}))
        files = ("-f", objects, "-f", settings)
        return policy("explain", "shop/away", "shop/web", "--port", str(port), *files)

    assert explained(80, Type="vxlan").exit_code == 0, "by the tunnel"
    assert explained(80, Type="host-gw").exit_code == 3
    assert explained(443, Type="host-gw").exit_code == 0
    assert explained(80, Type="vxlan", DirectRouting=True).exit_code == 3
    refused = explained(80, Type="ipip").exception
    assert isinstance(refused, CliError)
    assert "net-conf.json of ConfigMap towpath-config: " in str(refused)


def test_the_order_of_calicos_policies_is_that_of_the_agents_settings_unless_it_is_given(
    tmp_path: Path,
) -> None:
    """Up to 3.31 the policy is in the tier of its name."""
    objects, settings = tmp_path / "objects.yml", tmp_path / "settings.yml"
    named = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "edge.shut", "namespace": "shop"},
        "spec": {"order": 1, "selector": "app == 'db'", "types": ["Ingress"]},
    }
    objects.write_text(PODS_YAML + "---\n" + json.dumps(named))

    def tier(*options: str | Path) -> str:
        told = policy("explain", "shop/web", "shop/db", "-f", objects, *options).stdout
        (line,) = {line for line in told.splitlines() if "denied by the default" in line}
        return line.partition("default of tier ")[2].partition(":")[0]

    assert tier() == "default"
    settings.write_text(SETTINGS_YAML.replace('failsafe_inbound: "tcp:2222"', "calico_order: 3.31"))
    assert tier("-f", settings) == "edge"
    assert tier("-f", settings, "--calico", "3.32") == "default"
    settings.write_text(SETTINGS_YAML.replace('failsafe_inbound: "tcp:2222"', "calico_order: 4"))
    refused = policy("explain", "shop/web", "shop/db", "-f", objects, "-f", settings).exception
    assert isinstance(refused, CliError) and "calico_order: 4 is none of 3.31, 3.32" in str(refused)


def test_failsafe_ports_are_those_of_the_agents_settings(tmp_path: Path) -> None:
    pods, hosts, settings = (tmp_path / name for name in ("pods.yml", "hosts.yml", "settings.yml"))
    pods.write_text(PODS_YAML)
    hosts.write_text(HOST_YAML)
    settings.write_text(SETTINGS_YAML)
    files = ("-f", pods, "-f", hosts)

    def reaches(port: int, *more: str | Path) -> bool:
        return policy("explain", "203.0.113.1", "node/n1", "--port", str(port), *files, *more).exit_code == 0

    assert (reaches(22), reaches(2222)) == (True, False)
    assert (reaches(22, "-f", settings), reaches(2222, "-f", settings)) == (False, True)
    changed = policy("diff", pods, settings, *files)
    assert changed.exit_code == 3, "what is safe changes"
    settings.write_text(SETTINGS_YAML.replace("tcp:2222", "tcp:none"))
    refused = policy("explain", "203.0.113.1", "node/n1", *files, "-f", settings)
    assert isinstance(refused.exception, CliError)
    assert "agent.yaml of ConfigMap towpath-config: failsafe_inbound: " in str(refused.exception)
