"""What Multus keeps on a node: its configuration, and what it remembers of the pods it began. Pure.

Source: Multus 4.3, thin and thick alike. In ``cniDir`` (/var/lib/cni/multus) a file a container, named by its
ID, is the list of what was delegated, the default network first; ``results`` below it is libcni's cache of
every delegate's call. Interfaces without a name of their own are netN by their place in that list. DEL goes
by both.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from towpath.api.meta import ObjectMeta
from towpath.api.networks import NetworkAttachmentDefinition, NetworkSpec
from towpath.model.attachment import PodRef
from towpath.multinet.definition import Definition, definition
from towpath.multinet.derive import Call
from towpath.multinet.journal import Row
from towpath.multinet.refusal import NetworkRefused

_TYPES = ("multus", "multus-shim")
_CNI_DIR = "/var/lib/cni/multus"
_CALICO = "calico"

Document = dict[str, Any]


class MultusConf(msgspec.Struct, frozen=True, kw_only=True):
    """Multus's configuration. ``text`` is the whole file; ``network`` its name, by which the runtime knows
    it; ``cni_dir`` where it remembers.
    """

    file: str
    text: str
    network: str = ""
    cni_dir: str = _CNI_DIR


def parse(file: str, text: str) -> MultusConf | None:
    """None for what is not Multus's."""
    try:
        document = json.loads(text)
        plugins = document.get("plugins", [document])
        own = next((plugin for plugin in plugins if plugin.get("type") in _TYPES), None)
    except (ValueError, AttributeError, TypeError):
        return None
    if own is None:
        return None
    return MultusConf(
        file=file,
        text=text,
        network=str(document.get("name", "")),
        cni_dir=str(own.get("cniDir") or _CNI_DIR),
    )


class Cached(msgspec.Struct, frozen=True, kw_only=True):
    """libcni's memory of one call: what was given, and what came back; None where that is not known."""

    config: bytes
    args: tuple[tuple[str, str], ...] = ()
    capabilities: Document = {}
    netns: str = ""
    result: Document | None = None


def cached(content: bytes) -> Cached | None:
    """A file of libcni's cache; None if it makes no sense."""
    try:
        document = json.loads(content)
        return Cached(
            config=base64.b64decode(document["config"]),
            args=tuple((str(key), str(value)) for key, value in document.get("cniArgs") or []),
            capabilities=dict(document.get("capabilityArgs") or {}),
            netns=str(document.get("netns") or ""),
            result=document.get("result") or None,
        )
    except (ValueError, AttributeError, TypeError, KeyError):
        return None


class Unreadable(Exception):
    """Multus's memory of a container makes no sense; the text says what of it."""


def rows(
    container_id: str, scratch: bytes, cache: Mapping[str, bytes], network: str, boot_id: str
) -> tuple[Row, ...]:
    """The attachments that Multus began for a container, beside the default network; or in its place, where
    that is not Canal's. ``cache`` holds libcni's files by name; ``network`` is what the runtime's calls will
    be for. Raises Unreadable.
    """
    try:
        delegates = json.loads(scratch)
        if not isinstance(delegates, list) or not all(isinstance(one, dict) for one in delegates):
            raise ValueError("no list of objects")
        main = _main(container_id, delegates, cache)
        return tuple(
            _row(container_id, place, one, cache, main, network, boot_id)
            for place, one in enumerate(delegates)
            if place or not _is_canals(one)
        )
    except (ValueError, TypeError, KeyError, AttributeError, NetworkRefused) as error:
        raise Unreadable(f"container {container_id}: {error}") from error


def _main(container_id: str, delegates: Sequence[Document], cache: Mapping[str, bytes]) -> str:
    """The runtime's name for the default interface."""
    prefix = f"{_network(delegates[0])}-{container_id}-" if delegates else ""
    return next((name.removeprefix(prefix) for name in cache if prefix and name.startswith(prefix)), "eth0")


def _row(
    container_id: str,
    place: int,
    delegate: Document,
    cache: Mapping[str, bytes],
    main: str,
    network: str,
    boot_id: str,
) -> Row:
    ifname = str(delegate.get("ifnameRequest") or (f"net{place}" if place else main))
    content = cache.get(f"{_network(delegate)}-{container_id}-{ifname}")
    known = cached(content) if content is not None else None
    if known is None:  # its ADD did not come to an end, or was never begun
        known = Cached(config=base64.b64decode(delegate["Bytes"]))
    found = _definition(str(delegate.get("Name") or ""), known.config)
    args = dict(known.args)
    pod = PodRef(
        namespace=args.get("K8S_POD_NAMESPACE", ""),
        name=args.get("K8S_POD_NAME", ""),
        uid=args.get("K8S_POD_UID", ""),
    )
    return Row(
        call=Call(
            container_id=container_id,
            netns=known.netns,
            ifname=ifname,
            network=found.network,
            version=found.version,
            plugins=found.plugins,
            args=";".join(f"{key}={value}" for key, value in known.args),
            runtime=known.capabilities,
            disable_check=found.disable_check,
            disable_gc=found.disable_gc,
        ),
        place=place,
        main=main,
        runtime_network=network,
        reference=found.reference,
        boot_id=boot_id,
        pod=pod if pod.namespace and pod.name else None,
        gateways=tuple(str(gateway) for gateway in delegate.get("default-route") or ()),
        instead=place == 0,
        multus=True,
        result=known.result,
    )


def _definition(name: str, config: bytes) -> Definition:
    """Root itself wrote it: there is no list that it has to keep to. Raises NetworkRefused."""
    namespace, _, own = name.rpartition("/")
    document = json.loads(config)
    meta = ObjectMeta(namespace=namespace or "multus", name=own or str(document.get("name", "")))
    spec = NetworkSpec(config=config.decode())
    return definition(NetworkAttachmentDefinition(metadata=meta, spec=spec), None)


def _network(delegate: Document) -> str:
    conf, conflist = delegate.get("Conf") or {}, delegate.get("ConfList") or {}
    return str(conf.get("name") or conflist.get("name") or "")


def _is_canals(delegate: Document) -> bool:
    conflist = delegate.get("ConfList") or {}
    kinds = [plugin.get("type") for plugin in conflist.get("plugins") or []]
    return _CALICO in kinds or (delegate.get("Conf") or {}).get("type") == _CALICO


# The way back.


def scratch(canal: str, attached: Sequence[Row]) -> bytes:
    """What Multus would have written of a container whose default network is Canal's (``canal`` is its
    configuration), with these attachments. Their places are filled up: Multus counts.
    """
    made = [] if any(row.instead for row in attached) else [_delegate("", canal)]
    for row in sorted(attached, key=lambda row: row.place):
        delegate = _delegate(row.reference, _config(row).decode())
        if not row.instead:
            delegate["ifnameRequest"] = row.call.ifname
        if row.gateways:
            delegate["default-route"] = list(row.gateways)
        made.append(delegate)
    return json.dumps(made).encode()


def _delegate(name: str, text: str) -> Document:
    document = json.loads(text)
    kind = "ConfList" if "plugins" in document else "Conf"
    given = {"Conf": {}, "ConfList": {}, kind: document}
    return {**given, "Name": name, "Bytes": base64.b64encode(text.encode()).decode()}


def cache_of(row: Row) -> tuple[str, bytes]:
    """Name and content of libcni's file for an attachment."""
    call = row.call
    name = f"{call.network}-{call.container_id}-{call.ifname}"
    pairs = [pair.partition("=") for pair in call.args.split(";") if pair]
    document = {
        "kind": "cniCacheV1",
        "containerId": call.container_id,
        "config": base64.b64encode(_config(row)).decode(),
        "ifName": call.ifname,
        "networkName": call.network,
        "netns": call.netns,
        "cniArgs": [[key, value] for key, _, value in pairs],
        "capabilityArgs": call.runtime,
        "result": row.result,
    }
    return name, json.dumps(document).encode()


def _config(row: Row) -> bytes:
    """With what Multus writes into it: the pod's ``cni-args``, and the device."""
    call, plugins = row.call, []
    for plugin in row.call.plugins:
        config = dict(plugin)
        if call.cni_args:
            args = dict(config.get("args") or {})
            config["args"] = {**args, "cni": {**(args.get("cni") or {}), **call.cni_args}}
        if call.device:
            config |= {"deviceID": call.device, "pciBusID": call.device}
        plugins.append(config)
    return json.dumps({"cniVersion": call.version, "name": call.network, "plugins": plugins}).encode()
