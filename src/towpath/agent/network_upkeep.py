"""What is done for extra networks as a whole: STATUS, GC, and what no call comes for."""

import asyncio

from towpath.agent.attach_pods import PodDirectory, why_over
from towpath.agent.attach_turns import Turns
from towpath.agent.attachments import Attachments
from towpath.agent.network_chains import Chains
from towpath.agent.network_definitions import NetworkDefinitions, UnknownNetwork
from towpath.agent.network_detach import Detacher, failure
from towpath.agent.network_due import Due
from towpath.agent.network_plugins import PluginFailed
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.request import Request
from towpath.multinet.annotation import Selection
from towpath.multinet.choose import NetworkSettings, cluster_wide
from towpath.multinet.derive import Call, call
from towpath.multinet.journal import Journal
from towpath.multinet.refusal import NetworkRefused

_READY_WITHIN = 0.5


class Upkeep:
    """``turns`` are taken for a container's ID; those of ``adding`` are being attached just now."""

    def __init__(
        self,
        inner: Attachments,
        journal: Journal,
        chains: Chains,
        definitions: NetworkDefinitions,
        pods: PodDirectory,
        settings: NetworkSettings,
        detacher: Detacher,
        due: Due,
        turns: Turns,
        adding: set[str],
        boot_id: str,
    ) -> None:
        self._inner, self._journal, self._chains = inner, journal, chains
        self._definitions, self._pods, self._settings = definitions, pods, settings
        self._detacher, self._due, self._turns = detacher, due, turns
        self._adding, self._boot_id = adding, boot_id

    async def status(self, r: Request) -> None:
        """Raises CniError UNAVAILABLE while a network that all pods get cannot be served."""
        if self._journal.problem:
            raise CniError(ErrorCode.UNAVAILABLE, "no network can be journalled", self._journal.problem)
        try:
            for namespace, name in cluster_wide(self._settings):
                await self._serve(r, namespace, name)
        except (NetworkRefused, PluginFailed, ConnectionError, TimeoutError) as error:
            raise CniError(
                ErrorCode.UNAVAILABLE, "a network that all pods get cannot be served", f"{error}; TP6013"
            ) from error

    async def gc(self, r: Request) -> list[CniError]:
        """Detach what the runtime does not list, have plugins collect theirs; what went wrong.

        As with leases the list is one proof of two: where the API server has the pod, it waits.
        """
        valid = r.config.valid_attachments
        if valid is None or r.config.disable_gc:
            return []
        listed = frozenset(valid)
        errors: list[CniError] = []
        for row in self._journal.rows():
            gone = (row.call.container_id, row.main) not in listed and row.runtime_network == r.config.name
            if gone and row.call.container_id not in self._adding:
                if row.pod is not None and not await why_over(row.pod, self._pods):
                    continue
                async with self._turns.of(row.call.container_id):
                    errors += await self._detacher.all(r, [row])
        return errors + await self._collect_networks(r)

    async def collect(self) -> None:
        """Find what no DEL will come for, on two proofs: the node's and the API's. It is detached when
        the next DEL or GC of any pod brings a shim.
        """
        for row in self._journal.rows():
            if row.call.container_id in self._adding:
                continue
            rebooted = row.boot_id != self._boot_id
            detached = not row.instead and not self._inner.knows(row.call.container_id, row.main)
            if not (rebooted or detached):
                continue
            if rebooted if row.pod is None else await why_over(row.pod, self._pods):
                self._due.add(row.key)

    # The parts.

    async def _serve(self, r: Request, namespace: str, name: str) -> None:
        """Raises NetworkRefused, PluginFailed, ConnectionError."""
        try:
            found = self._definitions.lookup(namespace, name)
        except UnknownNetwork as unknown:
            async with asyncio.timeout(_READY_WITHIN):
                await self._definitions.fetch(unknown.key)
            found = self._definitions.lookup(namespace, name)
        made = call(found, Selection(name=name), "net1", r.environment)
        await self._chains.ready(r, made, self._chains.own(made.plugins), _READY_WITHIN)

    async def _collect_networks(self, r: Request) -> list[CniError]:
        networks: dict[str, tuple[Call, bool]] = {}
        for found in self._definitions.readable():
            made = call(found, Selection(name=found.reference.partition("/")[2]), "", r.environment)
            networks[found.reference] = made, self._chains.own(made.plugins)
        valid: dict[str, list[tuple[str, str]]] = {}
        for row in self._journal.rows():
            networks[row.reference] = row.call, row.own
            valid.setdefault(row.reference, []).append(row.key)
        errors = []
        for reference, (made, own) in networks.items():
            try:
                await self._chains.collect(r, made, valid.get(reference, ()), own)
            except (PluginFailed, ConnectionError) as error:
                errors.append(failure(ErrorCode.INTERNAL, reference, "GC", error))
        return errors
