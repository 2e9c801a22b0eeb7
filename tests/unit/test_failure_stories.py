"""docs/failure-stories.md, line by line: what went wrong for others is caught at the stage the page names.

Each story's observation is put before the check or gate itself; those that a lab can stage are staged as well
(``make bench-stories``).
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from bench import stories
from msgspec.structs import replace

import node_reports as reports
from preflight_worlds import (
    FROM,
    KNOWN,
    RIGHTS,
    TO,
    answers,
    changed_node,
    definitions,
    facts,
    reported,
    sound,
)
from towpath.inventory.cluster import HelmChart, HelmRelease, Inventory
from towpath.inventory.node_report import Churn, Leases, NodeReport, Postrouting
from towpath.kube.client import Client
from towpath.kube.fake import FakeApiServer
from towpath.upgrade import gates, gates_node
from towpath.upgrade import plan as plans
from towpath.upgrade.conduct import next_action
from towpath.upgrade.journal import Journal, Record
from towpath.upgrade.plan import Gates, NodeStep, Plan
from towpath.upgrade.seen import Seen, SeenPod
from towpath.upgrade.watching import PodSeen, Sample, findings

PAGE = Path(__file__).parents[2] / "docs/failure-stories.md"
CHAIN = reports.sound(1).postrouting[0]
MASQUERADE = "-A FLANNEL-POSTRTG -s 10.42.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE"
DROPPED = "adminnetworkpolicies.policy.networking.k8s.io"


def preflight(number: int, inventory: Inventory, source: str = FROM, target: str = TO) -> str:
    """What the check says of a cluster."""
    return "\n".join(map(str, answers(inventory, source, target)[number].findings))


def node_gate(change: Callable[[NodeReport], NodeReport], of: int = 1) -> str:
    """What the gate says of n1 after its turn, when node ``of`` shows something else than a sound one."""
    nodes = [
        replace(node, report=change(reports.sound(place)) if place == of else node.report)
        for place, node in enumerate(sound().nodes, 1)
    ]
    found = gates_node.verdict("n1", nodes, frozenset())
    assert found.state == "fail", found
    return found.why


def log_gate(line: str) -> str:
    """What the log gate says; nothing of a log that is in order."""
    assert gates.trouble(["level=info msg=ready", "synced 12 endpoints"], KNOWN.known.log) == ""
    return gates.trouble(["level=info", line], KNOWN.known.log)


def canary(why: str) -> str:
    """What is written of the first node when its new pod does not become ready. No other was touched."""
    images = {"calico-node": ("x:1", "x:2")}
    plan = _plan(images)
    old, new = SeenPod("old", "1", {"calico-node": "x:1"}, True), {"calico-node": "x:2"}
    pods = {"n1": SeenPod("new", "2", new, False, why), "n2": old, "n3": old}
    seen = Seen({"type": "OnDelete"}, new, pods, frozenset(pods))
    journal = Journal((Record("begin", 0.0), Record("touch", 1.0, "n1")))
    note = next_action(plan, journal, seen, 1.0 + plan.gates.ready_within + 0.1)
    assert (note.event, note.node) == ("failed", "n1")  # type: ignore[union-attr]
    return str(note)


def watch(**now: object) -> str:
    """What the watch says days later."""
    pod = PodSeen(node="n1", name="kube-system/p", ready=True, restarts=0)
    before = Sample(at=1, pods=(pod,), objects=definitions(FROM) | {"ipamblocks.crd.projectcalico.org": 30})
    changes = dict(now)
    lines = changes.pop("lines", ())
    later = replace(before, pods=(replace(pod, lines=lines),), **changes)
    return "\n".join(map(str, findings(before, later)))


def _plan(images: dict[str, tuple[str, str]], gate: Gates = Gates()) -> Plan:  # noqa: B008
    return plans.sign(
        Plan(
            created="now",
            cluster="uid",
            namespace="kube-system",
            daemonset="rke2-canal",
            source="1",
            target="2",
            images=images,
            strategy={"type": "RollingUpdate"},
            nodes=tuple(NodeStep(name, "") for name in ("n1", "n2", "n3")),
            gates=gate,
        )
    )


class Story(NamedTuple):
    """``code``: what the page names, and the finding too; ``caught`` gives what is said."""

    stage: str
    code: str
    caught: Callable[[], str]


def rules(*chain: tuple[str, str]) -> Callable[[NodeReport], NodeReport]:
    return lambda report: replace(report, postrouting=(replace(CHAIN, rules=chain),))


OLD_MASQUERADE = ("MASQUERADE", MASQUERADE)
STORIES = {
    "rancher#50921": Story(
        "preflight",
        "TP7308",
        lambda: preflight(7, replace(sound(), charts=(HelmChart("rke2-canal", "v1", "", frozen=False),))),
    ),
    "rke2#3805": Story(
        "preflight",
        "TP7311",
        lambda: preflight(16, changed_node(2, lambda s: replace(facts(release=TO)(s), server=True))),
    ),
    "rke2#3787": Story(
        "preflight",
        "TP7312",
        lambda: preflight(17, changed_node(2, lambda s: replace(facts(release=TO)(s), server=True))),
    ),
    "rke2#3491": Story(
        "preflight",
        "TP7309",
        lambda: preflight(7, replace(sound(), releases=(HelmRelease("rke2-canal", 3, "uninstalling"),))),
    ),
    "rke2#6633": Story(
        "preflight", "TP7017", lambda: preflight(26, sound(), "v1.28.8+rke2r1", "v1.28.12+rke2r1")
    ),
    "rke2#10168": Story("watch", "TP7609", lambda: watch(objects={"ipamblocks.crd.projectcalico.org": 0})),
    "rke2#10494": Story("roll", "failed", lambda: canary("calico-node waits for Typha")),
    "calico#5760": Story(
        "roll",
        "TP7323",
        lambda: node_gate(lambda report: replace(report, rules=(*report.rules, reports.legacy(canal=40)))),
    ),
    "flannel#1092": Story("roll", "TP7331", lambda: node_gate(rules(OLD_MASQUERADE, *CHAIN.rules))),
    "flannel#797": Story("roll", "TP7331", lambda: node_gate(rules(*CHAIN.rules[::-1]))),
    "flannel#1913": Story(
        "roll",
        "TP7336",
        lambda: node_gate(
            lambda report: replace(
                report, churn=Churn(seconds=10, samples=10, changed={"ip nat FLANNEL-POSTRTG": 2})
            )
        ),
    ),
    "k3s#6047": Story("roll", "TP7330", lambda: node_gate(lambda report: replace(report, postrouting=()))),
    "rke2#4145": Story(
        "preflight",
        "TP7321",
        lambda: preflight(10, reported(problems=("ipset: Kernel and userspace incompatible",))),
    ),
    "rke2#8498 after": Story(
        "roll", "exit status", lambda: log_gate("felix: iptables-nft-restore failed: exit status 4")
    ),
    "rke2#11130": Story(
        "roll",
        "ipset",
        lambda: log_gate("felix: ipset v7.11: Syntax error: cannot parse 'tcp' as a protocol"),
    ),
    "rke2-charts#1022": Story(
        "preflight",
        "TP7341",
        lambda: preflight(
            4, replace(sound(), objects=definitions("v1.33.11+rke2r1")), "v1.33.11+rke2r1", "v1.33.12+rke2r1"
        ),
    ),
    "rke#3221": Story(
        "preflight",
        "TP7340",
        lambda: preflight(4, replace(sound(), rights={"DaemonSet/kube-system/rke2-canal": RIGHTS[1:]})),
    ),
    "rke2#3723": Story(
        "preflight", "TP7017", lambda: preflight(26, sound(), "v1.24.8+rke2r1", "v1.24.9+rke2r1")
    ),
    "rke2#4053": Story(
        "preflight", "TP7013", lambda: preflight(2, sound(), "v1.33.11+rke2r1", "v1.34.5+rke2r1")
    ),
    "rke2#11270": Story(
        "roll", "failed", lambda: canary("calico-node CrashLoopBackOff: kernel 7.2 lacks the helper")
    ),
    "rke2#8498": Story(
        "preflight",
        "TP7320",
        lambda: preflight(10, reported(modules={"vxlan": "loaded", "xt_comment": "missing"})),
    ),
    "keiretsu-labs#2903": Story(
        "roll", "TP7337", lambda: node_gate(lambda report: replace(report, image_files={"calico": "another"}))
    ),
    "calico#8777": Story(
        "watch",
        "TP7603",
        lambda: watch(lines=(("connection is Unauthorized", "a token is no longer taken"),)),
    ),
    "rke2#3361": Story(
        "preflight",
        "TP7329",
        lambda: preflight(14, reported(leases=(Leases(network="k8s", total=20, leaked=("10.42.2.9",)),))),
    ),
    "rke2#8151": Story(
        "preflight", "TP7017", lambda: preflight(26, sound(), "v1.32.1+rke2r1", "v1.32.2+rke2r1")
    ),
    "flannel#1795": Story(
        "roll",
        "TP7333",
        lambda: node_gate(
            lambda report: replace(
                report, tunnels=(replace(report.tunnels[0], fdb={"192.0.2.1": "02:00:00:00:00:99"}),)
            ),
            of=2,
        ),
    ),
    "calico#5760 before": Story(
        "preflight",
        "TP7323",
        lambda: preflight(11, reported(rules=(*reports.sound(2).rules, reports.legacy(canal=4)))),
    ),
    "dropped definitions": Story(
        "preflight",
        "TP7015",
        lambda: preflight(3, replace(sound(), objects={DROPPED: 2}), "v1.33.11+rke2r1", "v1.33.12+rke2r1"),
    ),
    "stale pins": Story(
        "preflight",
        "TP7307",
        lambda: preflight(
            6,
            replace(
                sound(),
                configs={"rke2-canal": "flannel:\n  image:\n    repository: r/hardened-flannel\n    tag: v1"},
            ),
        ),
    ),
    "a cloned node": Story(
        "preflight",
        "TP7318",
        lambda: preflight(
            21,
            changed_node(
                2,
                lambda s: replace(
                    s, flannel={**s.flannel, "backend-data": '{"VtepMAC":"02:00:00:00:00:01"}'}
                ),
            ),
        ),
    ),
    "MTU and VNI": Story(
        "preflight",
        "TP7335",
        lambda: preflight(28, reported(tunnels=(replace(reports.sound(2).tunnels[0], vni=4096),))),
    ),
    "firewalld": Story("preflight", "TP7325", lambda: preflight(13, reported(services=("firewalld",)))),
}
SANDBOX = ("rke2#11055", "rke2#4568")  # need an API server: below


# What a gate without a code says, and what the page calls the gate.
GATES = {
    "has no address": "a new pod gets an address",
    "started again": "a container is started again",
    "Syntax error": "log gate",
    "exit status 4": "log gate",
    "not ready": "the canary is not ready in time",
}


def rows() -> dict[str, list[str]]:
    """The page's table: the first issue of a line to its columns."""
    lines = [line for line in PAGE.read_text().splitlines() if re.match(r"\| (\d+|-) \|", line)]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[1].split(",")[0]: row for row in cells}


def test_the_page_tells_of_all_of_them() -> None:
    assert set(rows()) == {name.removesuffix(" after") for name in STORIES} | set(SANDBOX)
    numbered = [int(row[0]) for row in rows().values() if row[0] != "-"]
    assert numbered == list(range(1, 26))


@pytest.mark.parametrize("name", STORIES)
def test_a_story_is_caught_where_the_page_says(name: str) -> None:
    story, row = STORIES[name], rows()[name.removesuffix(" after")]
    told = story.caught()
    assert story.code in told, told
    assert story.stage in row[3]
    assert story.code in row[4] or not story.code.startswith("TP"), row


def test_what_the_page_calls_staged_is_what_the_bench_stages() -> None:
    """Story by story, at its stage, caught by the same code or gate; the figure is seconds of the bench."""
    page = {name: row for name, row in rows().items() if "staged" in row[5]}
    bench = {story.issue: story for story in stories.STORIES}
    assert set(page) == set(bench)
    for name, row in page.items():
        assert re.search(r"[0-9.]+ s, staged", row[5]) and bench[name].stage in row[3], row
        says = bench[name].says
        assert GATES.get(says, says) in row[4], row


def test_a_story_is_not_told_of_a_cluster_in_order() -> None:
    """No check that a story relies on finds something where nothing is wrong."""
    told = [(a.check.number, f.code) for a in answers(sound()).values() for f in a.findings]
    assert [one for one in told if one[0] != 26] == [(6, "TP7344")]  # a default of the chart changes


@pytest.mark.parametrize("name", SANDBOX)
async def test_ready_and_no_new_pod_gets_an_address(name: str) -> None:
    """The DaemonSet's pod is Ready with the new images; the gate's own pod waits for its network for ever."""
    assert (rows()[name][3], "new pod" in rows()[name][4]) == ("roll", True)
    plan = _plan({"calico-node": ("x/y:1", "x/y:2")}, Gates(sandbox_within=0.3))
    server = await FakeApiServer.start()
    async with Client(server.config()) as client:
        own = {
            "metadata": {
                "name": "rke2-canal-1",
                "namespace": "kube-system",
                "ownerReferences": [{"kind": "DaemonSet", "name": "rke2-canal"}],
            },
            "spec": {"nodeName": "n1", "containers": [{"name": "calico-node", "image": "x/y:2"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }
        server.put(gates._PODS, own)
        found = await gates.judge(client, plan, "n1", 0.0, KNOWN.known.log)
    await server.down()
    assert [(gate.gate, gate.state) for gate in found.gates] == [
        ("stays well", "pass"),
        ("a new pod gets an address", "fail"),
    ]
    assert list(server.objects["core/v1/pods"]) == [("kube-system", "rke2-canal-1")], (
        "its pod went away again"
    )


def test_chains_as_they_are_before() -> None:
    assert isinstance(CHAIN, Postrouting) and CHAIN.rules[-1][1].startswith(MASQUERADE)
