"""docs/security.md says of each container that Towpath renders as whom it runs and with what, and why."""

from collections.abc import Iterator
from typing import Any

import yaml

from towpath.image.build import project
from towpath.install.migration import job
from towpath.install.render import render
from towpath.install.values import Values
from towpath.probe.objects import Run, prober
from towpath.probe.plan import Plan
from towpath.upgrade.node_reading import Reading, reader_pod
from towpath.upgrade.pulling import puller
from towpath.upgrade.watch_job import Watch, manifests

IMAGE = "example.org/towpath"
WATCH = Watch(image=IMAGE, length=60, every=5, probe_seconds=5, read_nodes=True)


def pods() -> Iterator[dict[str, Any]]:
    """The pod specifications of everything that Towpath starts in a cluster."""
    taken = Values(takeover_image=IMAGE)
    rendered = [
        *render(Values(helper=True)),
        *job(taken, "takeover", "a"),
        *job(taken, "handback", "a"),
        *yaml.safe_load_all(manifests(WATCH)),
        reader_pod("a", "x", Reading(image=IMAGE, python=("python3",))),
        puller("kube-system", "a", "x", [IMAGE], []),
        prober(
            Run(name="x", expires="", image=IMAGE),
            "a",
            Plan(prober="a", seconds=1, probes=()),
            host_network=False,
        ),
    ]
    for one in rendered:
        if one["kind"] in ("DaemonSet", "Job"):
            yield one["spec"]["template"]["spec"]
        elif one["kind"] == "Pod":
            yield one["spec"]


def row(pod: dict[str, Any], container: dict[str, Any]) -> str:
    """A line of the table."""
    own = container["securityContext"]
    user = str(own.get("runAsUser", "the image's"))
    added = ", ".join(own["capabilities"].get("add", ())) or "none"
    assert own["capabilities"]["drop"] == ["ALL"], container["name"]
    volumes = {one["name"]: one for one in pod.get("volumes", ())}
    mounted = [volumes[one["name"]] for one in container.get("volumeMounts", ())]
    projected = any("serviceAccountToken" in source for one in mounted
                    for source in one.get("projected", {}).get("sources", ()))  # fmt: skip
    token = "yes" if projected or pod.get("automountServiceAccountToken", True) else "none"
    spaces = [name for name in ("hostNetwork", "hostPID") if pod.get(name)]
    limits = ", ".join(container.get("resources", {}).get("limits", ())) or "none"
    escalation = "yes" if own["allowPrivilegeEscalation"] else "no"
    cells = (f"`{container['name']}`", user, added, token, ", ".join(spaces) or "none", escalation, limits)
    return f"| {' | '.join(cells)} |"


def test_the_table_of_containers_is_what_is_rendered() -> None:
    rendered = [row(pod, one) for pod in pods()
                for one in (*pod.get("initContainers", ()), *pod["containers"])]  # fmt: skip
    text = (project() / "docs/security.md").read_text()
    _, _, rest = text.partition("### Every container, as rendered\n")
    table = [line for line in rest.partition("\n#")[0].splitlines() if line.startswith("| `")]
    assert table == list(dict.fromkeys(rendered))


def test_each_capability_that_is_added_has_its_reason() -> None:
    text = (project() / "docs/security.md").read_text()
    _, _, rest = text.partition("### Every container, as rendered\n")
    section = rest.partition("\n#")[0]
    for pod in pods():
        for one in pod["containers"]:
            for capability in one["securityContext"]["capabilities"].get("add", ()):
                name = "takeover" if one["name"] == "handback" else one["name"]  # the same, backwards
                assert f"{name}, {capability}:" in " ".join(section.split()), "say why"
