"""One attachment to an extra network: its chain of plugins, forwards for ADD and backwards for DEL.

Source: CNI 1.1.0, section 4, and libcni: ADD passes each result on; DEL and CHECK give every plugin the last
one, from 0.4.0 on; DEL stops at the first failure, and is begun anew.
"""

from collections.abc import Iterable, Sequence
from ipaddress import ip_interface

import msgspec

from towpath.agent.network_builtin import Builtin
from towpath.agent.network_plugins import Document, PluginFailed, Plugins, result_of
from towpath.cni.request import Request
from towpath.cni.result import Result
from towpath.cni.version import allows
from towpath.multinet.derive import Call, environment, remembers_result, stdin
from towpath.multinet.journal import Row
from towpath.multinet.status import own_interface, own_ips


class Chains:
    """Has plugins executed, and does what Towpath does itself."""

    def __init__(self, plugins: Plugins, builtin: Builtin) -> None:
        self._plugins, self._builtin = plugins, builtin

    def own(self, plugins: Sequence[Document]) -> bool:
        """Whether the first plugin of a chain is not to be executed."""
        return self._builtin.does(plugins[0])

    async def add(self, r: Request, row: Row) -> Document:
        """The chain's result, which has what was asked for. Raises PluginFailed, ConnectionError."""
        call, previous = row.call, None
        for number, plugin in enumerate(call.plugins):
            if row.own and number == 0:
                previous = await self._builtin.add(r, call, plugin)
                continue
            kind = str(plugin["type"])
            config = stdin(call, plugin, previous)
            printed = await self._plugins.run(r, kind, environment(call, "ADD", r.path), config)
            previous = result_of(kind, printed, call.version)
        assert previous is not None  # noqa: S101 - a chain is never empty
        _verify(call, previous)
        return previous

    async def delete(self, r: Request, row: Row, netns: str, never: str = "") -> None:
        """``netns`` is the namespace's path, empty where it is gone; ``never`` a plugin of which it is known
        that it was not there to be run. Raises PluginFailed, ConnectionError.
        """
        call = row.call
        previous = row.result if remembers_result(call.version) else None
        for number, plugin in reversed(list(enumerate(call.plugins))):
            if row.own and number == 0:
                await self._builtin.delete(r, call, plugin, previous, netns, never)
            elif (kind := str(plugin["type"])) != never:
                config = stdin(call, plugin, previous)
                await self._plugins.run(r, kind, environment(call, "DEL", r.path, netns), config)

    async def check(self, r: Request, row: Row) -> None:
        """Raises PluginFailed, ConnectionError."""
        call = row.call
        if call.disable_check or not allows(call.version, "CHECK") or row.result is None:
            return
        for number, plugin in enumerate(call.plugins):
            if row.own and number == 0:
                await self._builtin.check(r, call, plugin, row.result)
                continue
            config = stdin(call, plugin, row.result)
            await self._plugins.run(r, str(plugin["type"]), environment(call, "CHECK", r.path), config)

    async def collect(self, r: Request, call: Call, valid: Iterable[tuple[str, str]], own: bool) -> None:
        """GC of one network; ``valid`` are its attachments. Raises PluginFailed, ConnectionError."""
        if call.disable_gc or not allows(call.version, "GC"):
            return
        listed = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in valid]
        bare = msgspec.structs.replace(call, runtime={}, cni_args={}, device="")
        more = {"cni.dev/valid-attachments": listed, "cni.dev/attachments": listed}
        for kind, plugin in _executed(call.plugins, own):
            config = stdin(bare, plugin, more=more)
            await self._plugins.run(r, kind, environment(call, "GC", r.path), config)

    async def ready(self, r: Request, call: Call, own: bool, seconds: float) -> None:
        """Whether ADD could work: every plugin is there, and says so where it can. Raises as the others."""
        if own and (problem := self._builtin.servable(call.plugins[0])):
            raise PluginFailed(str(call.plugins[0]["type"]), "STATUS", problem)
        command = "STATUS" if allows(call.version, "STATUS") else "VERSION"
        for kind, plugin in _executed(call.plugins, own):
            await self._plugins.run(r, kind, environment(call, command, r.path), stdin(call, plugin), seconds)


def _executed(plugins: Sequence[Document], own: bool) -> Iterable[tuple[str, Document]]:
    """Executables of a chain, each with the configuration it is given."""
    for number, plugin in enumerate(plugins):
        if not (own and number == 0):
            yield str(plugin["type"]), plugin
            continue
        ipam = str((plugin.get("ipam") or {}).get("type", ""))
        if ipam and ipam != "static":
            yield ipam, plugin


def _verify(call: Call, result: Document) -> None:
    """What the pod asks for is what it got (de-facto standard, 4.1.2.1.3.2 and 4.1.2.1.4.2)."""
    parsed = Result.from_object(result, call.version)
    kind = str(call.plugins[-1]["type"])
    wanted = {ip_interface(text).ip for text in call.runtime.get("ips", ())}
    missing = sorted(wanted - {ip.address.ip for ip in own_ips(parsed)}, key=str)
    if missing:
        text = (
            f"the pod asks for {', '.join(map(str, missing))}, and its interface got other addresses; TP6014"
        )
        raise PluginFailed(kind, "ADD", text)
    _, interface = own_interface(parsed)
    mac = str(call.runtime.get("mac", ""))
    if mac and interface is not None and interface.mac.lower() != mac:
        raise PluginFailed(
            kind, "ADD", f"the pod asks for MAC {mac}, and got {interface.mac or 'none'}; TP6014"
        )
