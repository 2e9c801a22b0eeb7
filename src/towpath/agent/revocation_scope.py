"""Whose flows are cut when policy denies them, and which flows a change of the firewall may concern."""

from collections.abc import Callable, Iterable, Mapping

import msgspec

from towpath.api.core import Namespace, Pod
from towpath.desired.policy_chains import Verdicts
from towpath.desired.revocation import ANNOTATION, ENFORCE, SURVIVE
from towpath.kube.codec import Key
from towpath.model.finding import Finding
from towpath.model.net import Addr
from towpath.model.op import NftUpdate, Op
from towpath.model.policy import CLASS4, CLASS6, NET_CLASS4, NET_CLASS6, POD_FROM, POD_TO
from towpath.policy.policy_book import PolicyKey

_WISHES = (ENFORCE, SURVIVE)
_PEERS = {CLASS4.name, CLASS6.name}
_NETWORKS = {NET_CLASS4.name, NET_CLASS6.name}
_PODS = {POD_FROM.name, POD_TO.name}


class RevocationScope:
    """A pod's annotation counts before its namespace's, then that of any policy in force on it, which may ask
    for ``enforce`` only, then ``default``.
    """

    def __init__(
        self,
        default: str,
        pods: Callable[[], Mapping[Key, Pod]],
        namespaces: Callable[[], Mapping[Key, Namespace]],
    ) -> None:
        self._default, self._pods, self._namespaces = default, pods, namespaces
        self._marked: dict[object, tuple[str, str, frozenset[PolicyKey]]] = {}
        self._enforcing: frozenset[PolicyKey] = frozenset()
        self._wrong: dict[str, str] = {}

    def policy(self, source: object, raw: Mapping[str, object] | None, keys: Iterable[PolicyKey]) -> None:
        """An object that is these policies; ``source`` identifies it, ``raw`` None: it is gone."""
        wish = _annotation(raw)
        named = frozenset(keys)
        if wish:
            name = next(iter("/".join(part for part in key if part) for key in sorted(named)), "")
            self._marked[source] = (wish, name, named)
        elif self._marked.pop(source, None) is None:
            return
        asking = (policies for wish, _, policies in self._marked.values() if wish == ENFORCE)
        self._enforcing = frozenset[PolicyKey]().union(*asking)

    def enforced(
        self, endpoints: Iterable[str], applied: Callable[[str], frozenset[PolicyKey]]
    ) -> frozenset[str]:
        """Those of this node's endpoints (``Pod/NAMESPACE/NAME``) whose flows are cut."""
        self._wrong = {}
        found = set()
        for endpoint in endpoints:
            _, namespace, name = endpoint.split("/")
            pod, space = self._pods().get((namespace, name)), self._namespaces().get(("", namespace))
            wish = self._wish(endpoint, pod) or self._wish(f"Namespace/{namespace}", space)
            if not wish and self._enforcing and not self._enforcing.isdisjoint(applied(endpoint)):
                wish = ENFORCE
            if (wish or self._default) == ENFORCE:
                found.add(endpoint)
        return frozenset(found)

    def findings(self) -> list[Finding]:
        """Annotations that mean nothing."""
        policies = {name: wish for wish, name, _ in self._marked.values() if wish not in _WISHES}
        return [
            Finding(
                code="TP5161",
                object=name,
                message=f"{ANNOTATION}: {value!r} is neither {ENFORCE} nor {SURVIVE}, and counts for nothing",
                fix=f"write {ENFORCE} or {SURVIVE}, or remove the annotation",
                severity="warning",
            )
            for name, value in sorted({**self._wrong, **policies}.items())
        ]

    def _wish(self, name: str, one: Pod | Namespace | None) -> str:
        wish = (one.metadata.annotations or {}).get(ANNOTATION, "") if one is not None else ""
        if wish and wish not in _WISHES:
            self._wrong[name] = wish
            return ""
        return wish


def _annotation(raw: Mapping[str, object] | None) -> str:
    metadata = (raw or {}).get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    wish = annotations.get(ANNOTATION) if isinstance(annotations, dict) else None
    return wish if isinstance(wish, str) else ""


class Touched(msgspec.Struct):
    """Whose flows a change may concern: of these endpoints, or with these peers; or anybody's."""

    everything: bool = False
    endpoints: set[str] = msgspec.field(default_factory=set)
    peers: set[Addr] = msgspec.field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.everything or self.endpoints or self.peers)

    def add(self, other: "Touched") -> None:
        """And these."""
        self.everything |= other.everything
        self.endpoints |= other.endpoints
        self.peers |= other.peers


def touched(
    operations: Iterable[Op], names: Mapping[str, str], verdicts: Callable[[str], Verdicts]
) -> Touched:
    """By what has been done to the firewall. ``names`` are the endpoints behind interfaces, ``verdicts`` what
    each is judged by. Chains that verdicts share have names that say what they do: another verdict is another
    name. What a chain leads to that only tells addresses apart (``pd-``) is not looked for.
    """
    found = Touched()
    chains: set[str] = set()
    interfaces: set[str] = set()
    for update in operations:
        if not isinstance(update, NftUpdate):
            continue
        found.everything |= update.recreate
        chains.update(chain.name for chain in update.set_chains)
        for decl, elements in (*update.add_elements, *update.del_elements):
            if decl.name in _PEERS:
                found.peers.update(key[0] for key in elements)  # type: ignore[misc]
            elif decl.name in _NETWORKS:
                found.everything = True
            elif decl.name in _PODS:
                interfaces.update(str(key[0]) for key in elements)
            else:
                chains.add(decl.name)
    for interface, name in names.items():
        leading = {str(verdict[0]).removeprefix("goto ") for verdict in verdicts(interface) if verdict}
        dispatched = chains and any(chain.startswith("pd-") for chain in leading)
        if interface in interfaces or dispatched or not chains.isdisjoint(leading):
            found.endpoints.add(name)
    return found
