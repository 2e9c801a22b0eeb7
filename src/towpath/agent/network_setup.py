"""Extra networks in the daemon: the parts put together, or nothing where there is no cluster."""

import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

from towpath.agent.attach_pods import PodDirectory
from towpath.agent.attach_setup import pod_kernel
from towpath.agent.attachments import Attachments
from towpath.agent.config import Settings
from towpath.agent.ipam_calls import IpamCalls
from towpath.agent.ipam_plugin import FILE as LEASES
from towpath.agent.ipam_plugin import IpamPlugin
from towpath.agent.network_builtin import Builtin
from towpath.agent.network_chains import Chains
from towpath.agent.network_definitions import NetworkDefinitions
from towpath.agent.network_findings import findings
from towpath.agent.network_firewalls import PodFirewalls
from towpath.agent.network_helper import Helper
from towpath.agent.network_plug import Plugging
from towpath.agent.network_plugins import Plugins
from towpath.agent.network_telling import Telling
from towpath.agent.networks import Networks
from towpath.agent.pod_devices import PodDevices
from towpath.agent.runner import Runner
from towpath.agent.surroundings import Cluster, Surroundings
from towpath.cni.request import Handler
from towpath.cni.server import Attend
from towpath.ipam.errors import LeaseStoreError
from towpath.ipam.store import LeaseStore
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.nft import Nft
from towpath.kube.backoff import Backoff
from towpath.kube.client import Client
from towpath.log import get_logger
from towpath.model.finding import Finding
from towpath.model.net import Net
from towpath.model.nft import Owner
from towpath.multinet.choose import NetworkSettings
from towpath.multinet.confine import PATHS, TYPES, Confinement
from towpath.multinet.journal import FILE, Journal, JournalError

log = get_logger("towpath.networks")

# Between two changes of policy, as on the pod network.
_POLICY_REST = 0.02


class ExtraNetworks:
    """What the daemon needs of them. Without a cluster the ``handler`` is the default network's alone."""

    def __init__(
        self,
        handler: Handler,
        networks: Networks | None = None,
        definitions: NetworkDefinitions | None = None,
        journal: Journal | None = None,
        telling: Telling | None = None,
        firewalls: PodFirewalls | None = None,
        resync: float = 60.0,
        plugging: Plugging | None = None,
        helper: Helper | None = None,
        ipam: IpamPlugin | None = None,
    ) -> None:
        self._firewalls, self._ipam = firewalls, ipam
        self._runner = Runner(self._enforce, resync=resync, backoff=Backoff(0.2, 10.0), rest=_POLICY_REST)
        if firewalls is not None:
            firewalls.changed(self._runner.poke)
        self.handler, self._networks, self._definitions = handler, networks, definitions
        self._journal, self._telling, self._plugging = journal, telling, plugging
        self.attend: Attend | None = helper.attend if helper is not None else None
        """Takes what ``towpath-ns`` offers."""

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """What has to run."""
        parts = (self._definitions, self._plugging, self._firewalls, self._runner, self._ipam)
        return [part.run() for part in parts if part is not None] if self._definitions is not None else []

    async def _enforce(self) -> bool:
        return self._firewalls is None or self._firewalls.enforce()

    async def collect(self) -> None:
        """Every now and then."""
        if self._networks is not None:
            await self._networks.collect()
        if self._ipam is not None:
            await self._ipam.collect()

    def findings(self) -> list[Finding]:
        """What an operator should know."""
        if self._journal is None or self._telling is None:
            return []
        found = findings(self._journal, self._telling)
        for part in (self._plugging, self._firewalls, self._ipam):
            found += part.findings() if part is not None else []
        return found


def network_settings(settings: Settings) -> NetworkSettings:
    """As the agent is told."""
    confinement = Confinement(
        types=(*TYPES, *settings.network_types), paths=(*PATHS, *settings.network_paths)
    )
    return NetworkSettings(
        namespace=settings.network_namespace,
        defaults=settings.network_defaults,
        isolation=settings.network_isolation,
        global_namespaces=settings.network_global_namespaces,
        system_namespaces=settings.network_system_namespaces,
        confinement=confinement,
    )


@contextlib.asynccontextmanager
async def extra_networks(
    settings: Settings,
    client: Client | None,
    around: Surroundings,
    attachments: Attachments,
    routed: Sequence[Net],
    boot_id: str,
    owner: Owner,
) -> AsyncIterator[ExtraNetworks]:
    """In the calling thread's network namespace. Close the server before leaving. Raises OSError."""
    if client is None or around.pods is None or around.network_policies is None:
        yield ExtraNetworks(IpamCalls(attachments, None, 0))
        return
    chosen = network_settings(settings)
    plugins = Plugins(settings.network_seconds)
    journal = Journal(settings.state_dir / FILE)
    with contextlib.suppress(JournalError):  # STATUS, ADD and findings say so
        journal.open()
    definitions = NetworkDefinitions(
        client, settings.api_silence_seconds, settings.network_conf_dir, chosen.confinement
    )
    telling = Telling(client, settings.node_name)
    firewalls = PodFirewalls(around.network_policies, Nft, journal.rows, around.pod_of, owner)
    host = LinuxKernel(nft=False)
    leases = _leases(settings, boot_id)
    try:
        with contextlib.closing(Builtin(host, pod_kernel, plugins, settings.network_ask_ms)) as builtin:
            networks = Networks(
                attachments,
                journal,
                Chains(plugins, builtin),
                definitions,
                telling,
                around.pods,
                chosen,
                pod_kernel,
                routed,
                boot_id,
                time.monotonic,
                firewalls,
                PodDevices(settings.network_kubelet_socket, settings.network_device_info),
            )
            resync, helper = settings.resync_seconds, Helper(plugins)
            plugging = networks.plugging(helper, around.pod_of, resync)
            around.follow(plugging.poke)
            ipam = _ipam(settings, client, around, around.pods, attachments, journal, leases, routed)
            calls = IpamCalls(networks, ipam, settings.network_ask_ms)
            yield ExtraNetworks(
                calls, networks, definitions, journal, telling, firewalls, resync, plugging, helper, ipam
            )
    finally:
        leases.close()
        firewalls.close()
        host.close()
        await telling.close()
        journal.close()


def _leases(settings: Settings, boot_id: str) -> LeaseStore:
    """Of ``towpath-ipam``, opened if it can be: ADD and STATUS say what is wrong with it."""
    leases = LeaseStore(settings.state_dir / LEASES, boot_id=boot_id, clock=_since_boot)
    with contextlib.suppress(LeaseStoreError):
        leases.open()
    return leases


def _ipam(
    settings: Settings,
    client: Client,
    around: Surroundings,
    pods: PodDirectory,
    attachments: Attachments,
    journal: Journal,
    leases: LeaseStore,
    networks: Sequence[Net],
) -> IpamPlugin | None:
    if not (settings.network_ipam and isinstance(around, Cluster)):
        return None

    def containers() -> set[str]:
        """Those that have a network still, of whichever kind."""
        extra = {row.call.container_id for row in journal.rows()}
        return extra | {att.container_id for att in attachments.current()}

    return IpamPlugin(
        client,
        settings.node_name,
        around,
        pods,
        containers,
        networks,
        leases,
        settings.lease_grace_seconds,
        settings.api_silence_seconds,
    )


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
