"""From settings to a running agent: what happens before there is an event loop, in the order of privileges.

Everything that only root may do (folders, other people's files) comes first; then the process becomes what
it will be for the rest of its life.
"""

import asyncio
import contextlib
import ctypes
import os
import resource
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import msgspec

from towpath.agent import privileges
from towpath.agent.config import ConfigError, Settings, load
from towpath.agent.daemon import Agent
from towpath.agent.hold import wait_released
from towpath.agent.lock import AlreadyRunning, StateLock
from towpath.api.netconf import NetConfError, parse_net_conf
from towpath.kernel import nft_owner
from towpath.kernel.port import KernelRefused
from towpath.kube import config as kube_config
from towpath.kube.client import Client
from towpath.kube.errors import KubeConfigError
from towpath.log import configure
from towpath.model.network import ClusterNetwork

PROCESS_NAME = "towpath-agent"
_FILES, _PR_SET_NAME = 65536, 15


class AgentFailed(Exception):
    """The agent cannot start or go on. ``usage`` tells that its settings are at fault."""

    def __init__(self, message: str, *, usage: bool = False) -> None:
        super().__init__(message)
        self.usage = usage


def run(flags: Mapping[str, str]) -> None:
    """Run the agent until it is told to stop. ``flags`` by setting name. Raises AgentFailed."""
    # What ps, top and `make record-seccomp` know it by; threads inherit it.
    ctypes.CDLL(None).prctl(_PR_SET_NAME, PROCESS_NAME.encode(), 0, 0, 0)
    try:
        settings = load(flags)
        network = cluster_network(settings)
    except (ConfigError, NetConfError) as e:
        problems = e.problems if isinstance(e, ConfigError) else (str(e),)
        raise AgentFailed("unusable settings:\n  " + "\n  ".join(problems), usage=True) from e
    configure("json" if settings.log_format == "json" else "console", settings.log_level)
    try:
        prepare_folders(settings)
        lock = StateLock(settings.state_dir)
        client = None if settings.standalone else _client(settings)
        privileges.drop(settings.run_as_uid or None, settings.run_as_gid or None)
    except (AlreadyRunning, KubeConfigError, privileges.PrivilegeError) as e:
        raise AgentFailed(str(e)) from e
    except OSError as e:
        raise AgentFailed(f"{e.filename or settings.state_dir}: {e.strerror}; check owner and mode") from e
    _open_many_files()
    try:
        asyncio.run(_main(settings, _owning(settings, network), client))
    except (OSError, KernelRefused, KubeConfigError) as e:
        raise AgentFailed(_words(e)) from e
    finally:
        lock.close()


def _open_many_files() -> None:
    """Settings of pods' interfaces are kept open; runtimes give 1 024 files, and let one ask for more."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, min(most, _FILES)), most))


def _client(settings: Settings) -> Client:
    access = kube_config.load(settings.kubeconfig)
    return Client(access, user_agent=f"towpath-agent/{settings.node_name}")


async def _main(settings: Settings, network: ClusterNetwork, client: Client | None) -> None:
    async with client or contextlib.nullcontext():
        await wait_released(settings)
        await Agent(settings, network, client).run()


def cluster_network(settings: Settings) -> ClusterNetwork:
    """net-conf.json with what flannel takes as flags, or the host's own networks. Raises NetConfError."""
    if settings.standalone:
        network = ClusterNetwork(
            ipv4=next((net for net in settings.standalone if isinstance(net, IPv4Network)), None),
            ipv6=next((net for net in settings.standalone if isinstance(net, IPv6Network)), None),
        )
    else:
        network = parse_net_conf(settings.net_conf)
    return msgspec.structs.replace(network, masquerade=settings.masquerade, pod_mtu=settings.pod_mtu)


def _owning(settings: Settings, network: ClusterNetwork) -> ClusterNetwork:
    """``network``, with the table owned if that is wanted and this kernel can. Raises OSError."""
    return msgspec.structs.replace(network, own_table=settings.own_table and nft_owner.ownable())


def prepare_folders(settings: Settings) -> None:
    """Make the state's and the socket's folder, 0770, for the group the agent will be in. Raises OSError."""
    for folder in dict.fromkeys((settings.state_dir, settings.cni_socket.parent)):
        created = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        if created:
            folder.chmod(0o770)
        if os.geteuid() == 0 and settings.run_as_uid:
            _give(folder, settings)


def _give(folder: Path, settings: Settings) -> None:
    """Let the agent's uid work in ``folder`` and on what an earlier agent of another uid left in it.

    Only where that is not so yet: a container's root may lack CAP_CHOWN, and there an installer did it.
    """
    uid, gid = settings.run_as_uid, settings.run_as_gid
    found = folder.stat()
    if gid and found.st_gid != gid:
        os.chown(folder, 0, gid)
    if found.st_mode & 0o7777 != 0o770:
        folder.chmod(0o770)
    for name in ("leases.db", "leases.db-wal", "leases.db-shm"):
        path = folder / name
        if path.exists() and path.stat().st_uid != uid:
            os.chown(path, uid, gid or -1)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)
