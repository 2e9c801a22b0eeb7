"""All that Towpath makes in a cluster, by whatever command: for the tests that judge it."""

from collections.abc import Iterator
from typing import Any

import yaml

from towpath.install.migration import job
from towpath.install.render import render
from towpath.install.values import Values
from towpath.probe.objects import Run, host_targets, prober, targets
from towpath.probe.plan import Plan
from towpath.upgrade.node_reading import Reading, reader_pod
from towpath.upgrade.pulling import puller
from towpath.upgrade.watch_job import Watch, manifests

IMAGE = "example.org/towpath"
WATCH = Watch(image=IMAGE, length=60, every=5, probe_seconds=5, read_nodes=True)


def objects() -> list[dict[str, Any]]:
    """Everything that Towpath makes in a cluster."""
    taken = Values(takeover_image=IMAGE)
    run = Run(name="x", expires="", image=IMAGE)
    return [
        *render(Values(helper=True)),
        *job(taken, "takeover", "a"),
        *job(taken, "handback", "a"),
        *yaml.safe_load_all(manifests(WATCH)),
        reader_pod("a", "x", Reading(image=IMAGE, python=("python3",))),
        puller("kube-system", "a", "x", [IMAGE], []),
        prober(run, "a", Plan(prober="a", seconds=1, probes=()), host_network=False),
        prober(run, "a", Plan(prober="a", seconds=1, probes=()), host_network=True),
        targets(run),
        host_targets(run),
    ]


def pods() -> Iterator[dict[str, Any]]:
    """The pod specifications of them."""
    for one in objects():
        if one["kind"] in ("DaemonSet", "Job"):
            yield one["spec"]["template"]["spec"]
        elif one["kind"] == "Pod":
            yield one["spec"]
