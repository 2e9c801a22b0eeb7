"""Canal's CNI configuration: which file is in force, and what it says about leases and plugins."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

# libcni loads these; anything else in the folder is nobody's business.
_SUFFIXES = (".conf", ".conflist", ".json")
SAVED = ".towpath-saved"
_DEFAULT_DATA = "/var/lib/cni/networks"


class NotCanal(Exception):
    """The configuration is not one that a node can be taken over from; the text says why."""


class CanalConf(msgspec.Struct, frozen=True, kw_only=True):
    """Canal's conflist. ``text`` is the whole file; ``data_dir`` host-local's; ``plugins`` as they stand."""

    file: str
    text: str
    network: str
    version: str
    data_dir: str
    plugins: tuple[dict[str, Any], ...]

    @property
    def types(self) -> tuple[str, ...]:
        """The programs that a call executes."""
        return tuple({str(p.get("type")): None for p in self.plugins} | {"host-local": None})

    def plugin(self, kind: str) -> dict[str, Any] | None:
        """The plugin of a type, if the list has it."""
        return next((p for p in self.plugins if p.get("type") == kind), None)


def in_force(names: Mapping[str, object] | list[str]) -> str:
    """The file a runtime loads: the first by name. Empty for none."""
    loaded = sorted(n for n in names if n.endswith(_SUFFIXES) and not n.startswith("."))
    return loaded[0] if loaded else ""


def parse(file: str, text: str) -> CanalConf:
    """Raises NotCanal."""
    try:
        document = json.loads(text)
        plugins = tuple(document.get("plugins", [document]))
        kinds = [plugin.get("type") for plugin in plugins]
    except (ValueError, AttributeError, TypeError) as error:
        raise NotCanal(f"{file} cannot be read: {error}") from error
    if "calico" not in kinds:
        raise NotCanal(f"{file} is no configuration of Canal's: its plugins are {', '.join(map(str, kinds))}")
    ipam = plugins[kinds.index("calico")].get("ipam") or {}
    if ipam.get("type") != "host-local":
        raise NotCanal(
            f"{file} has addresses given out by {ipam.get('type')!r}, not by host-local as Canal does"
        )
    return CanalConf(
        file=file,
        text=text,
        network=str(document.get("name", "")),
        version=str(document.get("cniVersion", "0.3.1")),
        data_dir=str(ipam.get("dataDir") or _DEFAULT_DATA),
        plugins=plugins,
    )


def call(
    conf: CanalConf, kind: str, runtime: Mapping[str, Any], previous: Mapping[str, Any] | None
) -> str | None:
    """What a runtime would give plugin ``kind`` of the list on stdin; None where the list has no such
    plugin.
    """
    plugin = conf.plugin(kind)
    if plugin is None:
        return None
    document = {**plugin, "name": conf.network, "cniVersion": conf.version, "runtimeConfig": dict(runtime)}
    if previous is not None:
        document["prevResult"] = dict(previous)
    return json.dumps(document)


def identity(cached: bytes) -> tuple[str, dict[str, str], str] | None:
    """Container ID, CNI_ARGS and namespace's path from a file of libcni's cache; None if it makes no
    sense."""
    try:
        document = json.loads(cached)
        args = {str(key): str(value) for key, value in document.get("cniArgs") or []}
        return str(document["containerId"]), args, str(document.get("netns") or "")
    except (ValueError, AttributeError, TypeError, KeyError):
        return None
