"""From a NetworkAttachmentDefinition to the plugins to be called. Pure.

Source: de-facto standard, 3.4; CNI 1.1.0, "Configuration format". ``cniVersions`` chooses the highest we
speak; the strings "true" and "false" count as booleans, as libcni takes them; keys match whatever their case.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from towpath.api.networks import RESOURCE_NAME, NetworkAttachmentDefinition
from towpath.cni.version import OLDEST, SUPPORTED
from towpath.multinet.confine import Confinement
from towpath.multinet.refusal import NetworkRefused

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")

OnDisk = Callable[[str], bytes | None]
"""A network's configuration by name, from the folder of the node's CNI configurations."""


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """What to call for a network.

    ``reference`` NAMESPACE/NAME of the object; ``network`` CNI's name; ``plugins`` whole configurations, in
    the order of ADD; ``resource`` the name of the device plugin's resource, may be empty.
    """

    reference: str
    network: str
    version: str
    plugins: tuple[dict[str, Any], ...]
    resource: str = ""
    disable_check: bool = False
    disable_gc: bool = False

    @property
    def types(self) -> tuple[str, ...]:
        """The plugins' types, in the order of ADD."""
        return tuple(str(plugin["type"]) for plugin in self.plugins)

    def declares(self, capability: str) -> bool:
        """Whether any plugin says that it has a capability."""
        return any(capability in capabilities(plugin) for plugin in self.plugins)


def definition(
    nad: NetworkAttachmentDefinition, confinement: Confinement | None, on_disk: OnDisk = lambda _: None
) -> Definition:
    """The object's network; without ``confinement`` it may name anything.

    Raises NetworkRefused: TP6004 for what is no configuration, TP6008 for types and paths beyond what is
    allowed.
    """
    meta = nad.metadata
    reference = f"{meta.namespace}/{meta.name}"
    about = f"NetworkAttachmentDefinition {reference}"
    raw: str | bytes | None = nad.spec.config
    if not nad.spec.config.strip():
        raw = on_disk(meta.name)
        if raw is None:
            fix = "give spec.config, or put a configuration of that name on every node"
            raise _bad(about, f"spec.config is empty, and no node's configuration is named {meta.name}", fix)
    document = _document(raw or b"", about)
    version = _version(document, about)
    network = document.get("name", "") or meta.name
    if not isinstance(network, str) or not _IDENTIFIER.fullmatch(network):
        raise _bad(about, f"name {network!r} is no network name")
    plugins = _plugins(document, about)
    if confinement is not None:
        for plugin in plugins:
            confinement.check(plugin, about)
    return Definition(
        reference=reference,
        network=network,
        version=version,
        plugins=plugins,
        resource=(meta.annotations or {}).get(RESOURCE_NAME, ""),
        disable_check=_boolean(document, "disableCheck", about),
        disable_gc=_boolean(document, "disableGC", about),
    )


def capabilities(plugin: Mapping[str, Any]) -> frozenset[str]:
    """Names of the capabilities that a plugin's configuration declares."""
    declared = plugin.get("capabilities") or {}
    return (
        frozenset(name for name, has in declared.items() if has)
        if isinstance(declared, dict)
        else frozenset()
    )


def _document(raw: str | bytes, about: str) -> dict[str, Any]:
    try:
        document = fold_top(msgspec.json.decode(raw))
    except (msgspec.DecodeError, RecursionError) as error:
        raise _bad(about, f"its configuration is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise _bad(about, "its configuration is not a JSON object")
    return document


_TOP = (
    "cniVersion",
    "cniVersions",
    "name",
    "plugins",
    "type",
    "disableCheck",
    "disableGC",
    "ipam",
    "capabilities",
)
_FOLDED = {key.casefold(): key for key in _TOP}


def fold_top(value: Any) -> Any:
    """An object with the keys that are read here in their proper spelling; all else as it is, for plugins."""
    if not isinstance(value, dict):
        return value
    found = {_FOLDED.get(key.casefold(), key): member for key, member in value.items()}
    if isinstance(found.get("plugins"), list):
        found["plugins"] = [fold_top(plugin) for plugin in found["plugins"]]
    return found


def _version(document: Mapping[str, Any], about: str) -> str:
    version = document.get("cniVersion") or ""
    several = document.get("cniVersions") or []
    if not isinstance(version, str) or not isinstance(several, list):
        raise _bad(about, "cniVersion is not a string, or cniVersions not a list")
    offered = [one for one in (*several, version) if one]
    known = [one for one in SUPPORTED if one in offered]
    if offered and not known:
        speak = ", ".join(SUPPORTED)
        raise _bad(
            about, f"CNI version {', '.join(map(str, offered))} is not spoken here", f"use one of {speak}"
        )
    return known[-1] if known else OLDEST


def _plugins(document: Mapping[str, Any], about: str) -> tuple[dict[str, Any], ...]:
    if "plugins" in document:
        plugins = document["plugins"]
        if not isinstance(plugins, list) or not plugins:
            raise _bad(about, "plugins is no list of configurations, or an empty one")
    else:
        plugins = [{k: v for k, v in document.items() if k not in ("cniVersion", "cniVersions", "name")}]
    for number, plugin in enumerate(plugins):
        where = f"plugins[{number}]" if "plugins" in document else "the configuration"
        if not isinstance(plugin, dict):
            raise _bad(about, f"{where} is not an object")
        kind = plugin.get("type")
        if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
            raise _bad(
                about, f"{where}: type {kind!r} is no plugin's name" if kind else f"{where} has no type"
            )
        for key in ("ipam", "capabilities"):
            if plugin.get(key) is not None and not isinstance(plugin[key], dict):
                raise _bad(about, f"{where}: {key} is not an object")
    return tuple(plugins)


def _boolean(document: Mapping[str, Any], key: str, about: str) -> bool:
    value = document.get(key, False)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if value is None or isinstance(value, bool):
        return bool(value)
    raise _bad(about, f"{key}: {value!r} is neither true nor false")


def _bad(about: str, problem: str, fix: str = "correct spec.config") -> NetworkRefused:
    return NetworkRefused("TP6004", about, problem, fix)
