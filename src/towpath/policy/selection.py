"""What selectors, networks and port names select, as sets of places.

Selectors are answered for groups of what is labelled alike, as far as any selector of the world asks, by
combining the sets of those that have a label's value: a selector costs its length, however many endpoints.
"""

from collections.abc import Iterator
from functools import reduce
from operator import or_

from towpath.model.net import Net
from towpath.policy.ir import KIND, Action, Endpoint, NamedPort, Peer, World
from towpath.policy.label_bits import LabelBits
from towpath.policy.places import Places, ones
from towpath.policy.selector import Selector, keys_of


class Selection:
    """Answers about one world.

    ``layers``: judged places, as many of them as endpoints that are judged share an address; ``denying``: of
    each layer, those whose endpoint denies what no tier decides; ``hosts``: those of host endpoints.
    """

    def __init__(self, world: World, places: Places) -> None:
        self._places = places
        self.everywhere = places.everywhere
        self.layers: list[int] = []
        self.denying: list[int] = []
        self.hosts: list[int] = []
        self._keys = frozenset[str]().union(*map(keys_of, set(_selectors(world))))
        self._groups: dict[frozenset[tuple[str, str]], int] = {}
        self._bits = LabelBits()
        self._peers: list[int] = []
        self._own: list[dict[int, int]] = []
        self._named: dict[str, dict[int, set[NamedPort]]] = {}
        self._name_answers: dict[frozenset[str], list[tuple[frozenset[NamedPort], int]]] = {}
        self._answers: dict[Selector, int] = {}
        self._peer_answers: dict[Selector, int] = {}
        self._net_answers: dict[Net, int] = {}
        self._add_endpoints(world)
        for networks in world.network_sets:
            self._peers[self._group(networks.labels)] |= self._in_nets(networks.nets)

    def _add_endpoints(self, world: World) -> None:
        for endpoint in world.endpoints:
            group = self._group(endpoint.labels)
            for number in dict.fromkeys(map(self._places.at, endpoint.addresses)):
                self._peers[group] |= 1 << number
                for named in endpoint.ports:
                    self._named.setdefault(named.name, {}).setdefault(number, set()).add(named)
                if endpoint.labels.get(KIND) != "node":
                    self._judge(number, group, endpoint)

    def _judge(self, number: int, group: int, endpoint: Endpoint) -> None:
        layer = next((n for n, taken in enumerate(self.layers) if not taken >> number & 1), len(self.layers))
        if layer == len(self.layers):
            self.layers.append(0)
            self.denying.append(0)
            self.hosts.append(0)
            self._own.append({})
        self.layers[layer] |= 1 << number
        self.denying[layer] |= (endpoint.unmatched == "deny") << number
        self.hosts[layer] |= (endpoint.labels.get(KIND) == "hostendpoint") << number
        self._own[layer][group] = self._own[layer].get(group, 0) | 1 << number

    def _group(self, labels: dict[str, str]) -> int:
        """The number of the group that has these labels, as far as selectors ask."""
        asked = frozenset((key, labels[key]) for key in self._keys & labels.keys())
        if asked not in self._groups:
            number = self._groups[asked] = len(self._groups)
            self._peers.append(0)
            self._bits.add(number, asked)
        return self._groups[asked]

    def own(self, selector: Selector, layer: int) -> int:
        """The judged places of a layer whose endpoint is selected."""
        selected, places = self._answer(selector), self._own[layer]
        return reduce(or_, (places.get(group, 0) for group in ones(selected)), 0)

    def peers(self, peer: Peer, action: Action) -> int:
        """The places of which all holds that the peer asks."""
        found = self.everywhere
        if peer.selector is not None:
            found &= self._selected(peer.selector)
        if peer.not_selector is not None:
            found &= ~self._selected(peer.not_selector)
        if peer.nets is not None:
            found &= self._in_nets(peer.nets)
        if peer.not_nets:
            found &= ~self._in_nets(peer.not_nets)
        # As evaluate has it: one that was never resolved allows nothing, and denies everything.
        return 0 if peer.service is not None and action == "allow" else found

    def named(self, names: frozenset[str]) -> list[tuple[frozenset[NamedPort], int]]:
        """The ports of these names that there are at a place, and all places where they are these."""
        if names not in self._name_answers:
            ports: dict[int, set[NamedPort]] = {}
            for name in names:
                for number, found in self._named.get(name, {}).items():
                    ports.setdefault(number, set()).update(found)
            answer: dict[frozenset[NamedPort], int] = {}
            for number, those in ports.items():
                key = frozenset(those)
                answer[key] = answer.get(key, 0) | 1 << number
            answer[frozenset()] = self.everywhere & ~reduce(or_, answer.values(), 0)
            self._name_answers[names] = list(answer.items())
        return self._name_answers[names]

    def _in_nets(self, nets: tuple[Net, ...]) -> int:
        for net in nets:
            if net not in self._net_answers:
                self._net_answers[net] = self._places.inside(net)
        return reduce(or_, (self._net_answers[net] for net in nets), 0)

    def _selected(self, selector: Selector) -> int:
        if selector not in self._peer_answers:
            groups = ones(self._answer(selector))
            self._peer_answers[selector] = reduce(or_, (self._peers[group] for group in groups), 0)
        return self._peer_answers[selector]

    def _answer(self, selector: Selector) -> int:
        """The groups selected."""
        if selector not in self._answers:
            self._answers[selector] = self._bits.answer(selector)
        return self._answers[selector]


def _selectors(world: World) -> Iterator[Selector]:
    for policy in world.policies:
        yield policy.selector
        for rule in (*(policy.ingress or ()), *(policy.egress or ())):
            for peer in (rule.source, rule.destination):
                yield from (s for s in (peer.selector, peer.not_selector) if s is not None)
