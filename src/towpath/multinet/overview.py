"""A cluster's networks and what its pods have of them, for those who look from outside. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from towpath.api.core import Pod
from towpath.api.networks import NetworkAttachmentDefinition
from towpath.model.finding import Finding
from towpath.multinet.annotation import DEFAULT_NETWORK, NETWORKS, selections
from towpath.multinet.choose import NetworkSettings, choose, cluster_wide
from towpath.multinet.definition import Definition, definition
from towpath.multinet.refusal import NetworkRefused
from towpath.multinet.status import STATUS

Key = tuple[str, str]
_OVER = ("Succeeded", "Failed")


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """A NetworkAttachmentDefinition. ``problem`` why no pod can have it, empty otherwise; ``on_nodes``: its
    configuration is there. ``pods`` that ask for it.
    """

    network: str
    plugins: tuple[str, ...] = ()
    addresses: str = ""
    version: str = ""
    resource: str = ""
    pods: int = 0
    code: str = ""
    problem: str = ""
    on_nodes: bool = False


class Networks:
    """Definitions by namespace and name, as a pod's choice looks them up."""

    def __init__(self, nads: Iterable[NetworkAttachmentDefinition], settings: NetworkSettings) -> None:
        self._settings = settings
        self._nads = {(nad.metadata.namespace, nad.metadata.name): nad for nad in nads}

    def lookup(self, namespace: str, name: str) -> Definition:
        """Raises NetworkRefused."""
        nad = self._nads.get((namespace, name))
        if nad is None:
            problem = "there is no NetworkAttachmentDefinition of that name"
            fix = "create it, or correct the pod's annotation"
            raise NetworkRefused("TP6002", f"network {namespace}/{name}", problem, fix)
        return definition(
            nad, self._settings.confinement, _stands_in if self.on_nodes(namespace, name) else _none
        )

    def on_nodes(self, namespace: str, name: str) -> bool:
        """Whether it is there, and empty."""
        nad = self._nads.get((namespace, name))
        return nad is not None and not nad.spec.config.strip()

    def described(self, pods: Sequence[Pod]) -> list[Described]:
        """All of them, by name."""
        asked: dict[str, int] = {}
        for pod in pods:
            for reference in _asked(pod):
                asked[reference] = asked.get(reference, 0) + 1
        return [self._one(key, asked.get("/".join(key), 0)) for key in sorted(self._nads)]

    def findings(self, pods: Sequence[Pod]) -> list[Finding]:
        """What is wrong with definitions, with what pods ask for, and with what they have got."""
        found = [
            Finding(
                code=one.code,
                object=f"NetworkAttachmentDefinition/{one.network}",
                message=one.problem,
                fix="correct spec.config, or the agents' settings network_types and network_paths",
            )
            for one in self.described(())
            if one.code
        ]
        found += self._of_all_pods()
        for pod in pods:
            if pod.status.phase not in _OVER and not pod.spec.host_network:
                found += self._of_pod(pod)
        return found

    def _one(self, key: Key, pods: int) -> Described:
        reference, on_nodes = "/".join(key), self.on_nodes(*key)
        try:
            found = self.lookup(*key)
        except NetworkRefused as refusal:
            return Described(network=reference, pods=pods, code=refusal.code, problem=refusal.problem)
        if on_nodes:
            return Described(network=reference, pods=pods, on_nodes=True, resource=found.resource)
        ipams = [str((plugin.get("ipam") or {}).get("type", "")) for plugin in found.plugins]
        return Described(
            network=reference,
            plugins=found.types,
            addresses=next(filter(None, ipams), ""),
            version=found.version,
            resource=found.resource,
            pods=pods,
        )

    def _of_all_pods(self) -> list[Finding]:
        try:
            for key in cluster_wide(self._settings):
                self.lookup(*key)
        except NetworkRefused as refusal:
            fix = "create or correct it, or take it from the agents' setting network_defaults"
            return [Finding(code="TP6013", object="network_defaults", message=str(refusal), fix=fix)]
        return []

    def _of_pod(self, pod: Pod) -> list[Finding]:
        name, annotations = _name(pod), pod.metadata.annotations or {}
        try:
            choice = choose(pod.metadata.namespace, annotations, self._settings, self.lookup)
        except NetworkRefused as refusal:
            if refusal.code in ("TP6004", "TP6008", "TP6013"):  # told of the definition
                return []
            return [Finding(code=refusal.code, object=name, message=str(refusal), fix=refusal.fix)]
        found = [
            Finding(
                code="TP6001",
                object=name,
                message=f"{NETWORKS} has keys that mean nothing: {', '.join(one.selection.unknown)}",
                fix="correct them; they are passed over",
                severity="warning",
            )
            for one in choice.all
            if one.selection.unknown
        ]
        if pod.status.phase == "Running":
            there = {entry.get("interface") for entry in attached(pod)}
            missing = [one for one in choice.all if one.ifname not in there]
            found += [
                Finding(
                    code="TP6012",
                    object=name,
                    message=f"it runs, and {STATUS} does not have {one.ifname} of {one.definition.reference}",
                    fix="see the pod's Events: a running pod's networks change where towpath-ns runs",
                    severity="warning",
                )
                for one in missing
            ]
        return found


def attached(pod: Pod) -> list[dict[str, Any]]:
    """The entries of the pod's network-status; none where it cannot be read."""
    try:
        found = msgspec.json.decode((pod.metadata.annotations or {}).get(STATUS, "[]"))
    except msgspec.DecodeError:
        return []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _asked(pod: Pod) -> set[str]:
    annotations: Mapping[str, str] = pod.metadata.annotations or {}
    found: set[str] = set()
    for key in (NETWORKS, DEFAULT_NETWORK):
        try:
            chosen = selections(annotations.get(key, ""), key)
        except NetworkRefused:
            continue
        found.update(f"{one.namespace or pod.metadata.namespace}/{one.name}" for one in chosen)
    return found


def _name(pod: Pod) -> str:
    return f"Pod/{pod.metadata.namespace}/{pod.metadata.name}"


def _none(_: str) -> bytes | None:
    return None


def _stands_in(name: str) -> bytes | None:
    """For a configuration that only nodes have: it is taken to be well."""
    return msgspec.json.encode({"cniVersion": "1.0.0", "name": name, "type": "loopback"})
