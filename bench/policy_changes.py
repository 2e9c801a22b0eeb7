"""From a decoded object's change until the kernel holds what it means.

With 10 000 policies, 1 000 local pods and 10 000 elsewhere. The agent's own way: object to endpoint or
policy, the engine's changes, one nftables transaction. Changed are labels of pods, mostly of those here, to
another marker or (a tenth) to a pair that few others have; and rules of policies, a quarter of which come
back after they had gone.
"""

import gc
import json
from collections.abc import Callable, Iterator
from random import Random
from time import perf_counter
from typing import Any

from bench.policy_worlds import MARKERS, NAMESPACES, calico_policy, labels, pod
from towpath.api.core import Namespace
from towpath.api.meta import ObjectMeta
from towpath.desired.protection import Peering
from towpath.desired.ruleset import SETS, TABLE, ruleset
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import new_netns, run_in
from towpath.model.network import ClusterNetwork
from towpath.model.nft import Key, NftSet
from towpath.model.op import NftUpdate
from towpath.policy.engine import Engine
from towpath.policy.objects import Objects
from towpath.policy.sources import source_of
from towpath.reconcile.tables import diff_table

POLICIES, LOCAL, REMOTE, SAMPLES = 10_000, 1_000, 10_000, 1_000
SOURCE = source_of("crd.projectcalico.org", "globalnetworkpolicies")


class Cluster:
    """What the API holds, the engine of one node, and that node's kernel."""

    def __init__(self) -> None:
        self._random = Random(1)
        self._engine = Engine()
        self._objects = Objects(self._engine)
        self._kernel = run_in(new_netns(), LinuxKernel)
        self._markers = [MARKERS[n % len(MARKERS)] for n in range(POLICIES)]
        for number in range(NAMESPACES):
            name = f"namespace-{number}"
            self._objects.namespace(name, Namespace(metadata=ObjectMeta(name=name)))
        for number in range(LOCAL + REMOTE):
            self._put_pod(number, labels(number))
        for number in range(POLICIES):
            self._put_policy(number)
        self._engine.set_local({f"cali{n}": f"Pod/namespace-{n % NAMESPACES}/pod-{n}" for n in range(LOCAL)})
        program = self._engine.program()
        table = ruleset(ClusterNetwork(), (), (), program, Peering())
        update = diff_table(None, table)
        assert update is not None
        bound = ((SETS["pod_from"], program.from_pod), (SETS["pod_to"], program.to_pod))
        more: list[tuple[NftSet, dict[Key, Key]]] = [
            (decl, {(dev,): data for dev, data in verdicts.items()}) for decl, verdicts in bound
        ]
        self._kernel.apply([update, NftUpdate(table=TABLE, add_elements=tuple(more))])
        self._kernel.observe((), TABLE)
        # As the agent does.
        gc.collect()
        gc.freeze()

    def relabel(self) -> None:
        """A pod's label changes."""
        number = self._random.randrange(LOCAL + REMOTE) if self._random.random() < 0.5 else None
        if number is None:
            number = self._random.randrange(LOCAL)
        kept = {key: value for key, value in labels(number).items() if not key.startswith("marker")}
        several = self._random.sample(MARKERS, 2 if self._random.random() < 0.1 else 1)
        self._put_pod(number, kept | dict.fromkeys(several, "true"))

    def edit(self) -> None:
        """A policy gets other rules, goes, or comes back."""
        number = self._random.randrange(POLICIES)
        key = ("", f"policy-{number}")
        if self._random.random() < 0.25:
            self._objects.policy(SOURCE, key, None)
            self._to_kernel()
        self._put_policy(number, edited=True)

    def timed(self, change: Callable[[], None]) -> Iterator[float]:
        """Milliseconds of each."""
        for _ in range(SAMPLES):
            begun = perf_counter()
            change()
            self._to_kernel()
            yield (perf_counter() - begun) * 1e3

    def _to_kernel(self) -> None:
        update = self._engine.changes()
        if update is not None and not self._kernel.amend(update):
            raise SystemExit("somebody else has changed the table")

    def _put_pod(self, number: int, own: dict[str, str]) -> None:
        key = (f"namespace-{number % NAMESPACES}", f"pod-{number}")
        self._objects.pod(key, pod(number, own))

    def _put_policy(self, number: int, *, edited: bool = False) -> None:
        selected = self._markers[number]
        allowed = [MARKERS[(number + n) % len(MARKERS)] for n in range(1, 6)]
        rules: list[dict[str, Any]] = [
            {"action": "Allow", "source": {"selector": f"has({marker})"}} for marker in allowed
        ]
        if edited:
            port = self._random.randrange(1, 9) * 1000
            to = {"ports": [port]}
            which = self._random.randrange(5)
            rules[which] = {**rules[which], "protocol": "TCP", "destination": to}
        self._objects.policy(SOURCE, ("", f"policy-{number}"), calico_policy(number, selected, rules))


def quantile(samples: list[float], share: float) -> float:
    """By the nearest rank."""
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * share))]


def main() -> None:
    """Both kinds of change."""
    cluster = Cluster()
    found = {}
    for name, change in (("pod", cluster.relabel), ("policy", cluster.edit)):
        samples = list(cluster.timed(change))
        for share, label in ((0.5, "p50"), (0.99, "p99"), (1.0, "max")):
            found[f"{name}_{label}_ms"] = round(quantile(samples, share), 2)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
