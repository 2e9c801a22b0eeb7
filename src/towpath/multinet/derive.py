"""What a plugin is given: standard input and environment of one call, as libcni derives them. Pure.

Source: CNI 1.1.0, "Section 4: Plugin Delegation" and "Deriving runtime configuration"; CONVENTIONS.md. The
runtime's own capability arguments (host ports above all) are the default network's; what the pod's annotation
asks of a network is that network's alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from towpath.cni.version import at_least
from towpath.multinet.annotation import Selection
from towpath.multinet.definition import Definition, capabilities

Document = dict[str, Any]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """All that the calls for one attachment have in common; kept in the journal.

    ``args`` is CNI_ARGS; ``runtime`` capability arguments by name; ``cni_args`` go to ``args.cni`` of each
    plugin, ``device`` to all of them. ``device_info`` is the file that describes it (``devices.info_file``).
    """

    container_id: str
    netns: str
    ifname: str
    network: str
    version: str
    plugins: tuple[Document, ...]
    path: tuple[str, ...] = ()
    args: str = ""
    runtime: Document = {}
    cni_args: Document = {}
    device: str = ""
    device_info: str = ""
    disable_check: bool = False
    disable_gc: bool = False


class Wishes(msgspec.Struct, frozen=True):
    """What a pod's annotation asks of an attachment, as its plugins are told: ``runtime`` capability
    arguments, ``cni_args`` what goes to ``args.cni``, ``device`` to all of them.
    """

    runtime: Document = {}
    cni_args: Document = {}
    device: str = ""


def wishes(selection: Selection) -> Wishes:
    """Those of one entry; ``ips`` and ``mac`` go both ways."""
    ips = [str(ip) for ip in selection.ips]
    runtime: Document = {
        "portMappings": list(selection.port_mappings),
        "bandwidth": selection.bandwidth,
        "ips": ips,
        "mac": selection.mac,
        "infinibandGUID": selection.infiniband_guid,
        "deviceID": selection.device_id,
    }
    asked = {key: value for key, value in (("ips", ips), ("mac", selection.mac)) if value}
    return Wishes(
        runtime={key: value for key, value in runtime.items() if value},
        cni_args={**asked, **selection.cni_args},
        device=selection.device_id,
    )


def call(definition: Definition, selection: Selection, ifname: str, environment: Mapping[str, str]) -> Call:
    """For an attachment of the container that the runtime's call with ``environment`` is about."""
    wished = wishes(selection)
    args = [environment.get("CNI_ARGS", "")]
    args += [f"IP={','.join(map(str, selection.ips))}"] if selection.ips else []
    args += [f"MAC={selection.mac}"] if selection.mac else []
    if "IgnoreUnknown=" not in args[0]:
        args.insert(0, "IgnoreUnknown=1")
    return Call(
        container_id=environment.get("CNI_CONTAINERID", ""),
        netns=environment.get("CNI_NETNS", ""),
        ifname=ifname,
        network=definition.network,
        version=definition.version,
        plugins=definition.plugins,
        path=tuple(filter(None, environment.get("CNI_PATH", "").split(":"))),
        args=";".join(filter(None, args)),
        runtime=wished.runtime,
        cni_args=wished.cni_args,
        device=wished.device,
        disable_check=definition.disable_check,
        disable_gc=definition.disable_gc,
    )


def stdin(
    one: Call, plugin: Document, previous: Document | None = None, more: Document | None = None
) -> bytes:
    """The configuration of one plugin of the chain."""
    config: Document = {**plugin, "cniVersion": one.version, "name": one.network}
    declared = capabilities(plugin)
    if runtime := {key: value for key, value in one.runtime.items() if key in declared}:
        config["runtimeConfig"] = {**(config.get("runtimeConfig") or {}), **runtime}
    if one.cni_args:
        args = dict(config.get("args") or {})
        args["cni"] = {**(args.get("cni") or {}), **one.cni_args}
        config["args"] = args
    if one.device:
        config |= {"deviceID": one.device, "pciBusID": one.device}
    if previous is not None:
        config["prevResult"] = previous
    return msgspec.json.encode({**config, **(more or {})})


def environment(one: Call, command: str, path: Sequence[str], netns: str | None = None) -> dict[str, str]:
    """The CNI variables. ``path`` are the folders of now; ``netns`` the namespace's path of now, if it is
    another, empty where it is gone.
    """
    found = {"CNI_COMMAND": command, "CNI_PATH": ":".join(path)}
    if command in ("STATUS", "GC", "VERSION"):
        return found
    return {
        **found,
        "CNI_CONTAINERID": one.container_id,
        "CNI_NETNS": one.netns if netns is None else netns,
        "CNI_IFNAME": one.ifname,
        "CNI_ARGS": one.args,
    }


def remembers_result(version: str) -> bool:
    """Whether DEL and CHECK are given the result of ADD (CNI 0.4.0)."""
    return at_least(version, "0.4.0")
