"""Executing CNI as containerd does: conflist from a folder, capability arguments, results cached on disk.

Upstream behaviour (containerd 2.x with go-cni and libcni): the lexically first .conf, .conflist or .json of
the folder is the network, and a file there that does not parse fails the whole load; runtimeConfig is the
capabilities a plugin declares ∩ those supplied; prevResult flows forward, on DEL (from 0.4.0 on) every
plugin gets the final one; a failed ADD is followed by DEL; STATUS is asked of 1.1.0 lists. One difference,
CRI-O's practice: DEL uses the configuration that ADD used, from the cache, where there is one; not so where
``remember`` is false.
"""

import asyncio
import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from towpath.lab.kubelet_spec import Pod

CONF_DIR, BIN_DIR, CACHE_DIR = Path("/etc/cni/net.d"), Path("/opt/cni/bin"), Path("/var/lib/cni/results")
IFNAME = "eth0"
FIXED = "lab.towpath.dev/addresses"  # a twin's pods ask for the addresses that they have in the cluster

# containerd: burst of 2³²−1 bits, as it has no better idea (kubernetes/kubernetes#90838).
_BURST = (1 << 32) - 1
_SUFFIXES = {".conf", ".conflist", ".json"}
_SCALE = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


class CniFailed(Exception):
    """A plugin refused or could not run; the text is what goes into the Event."""


class NotConfigured(CniFailed):
    """There is no usable network configuration (yet)."""


class NetworkList(msgspec.Struct, frozen=True, kw_only=True):
    """A conflist. ``plugins`` are whole configuration objects."""

    name: str
    version: str
    plugins: tuple[dict[str, Any], ...]
    raw: bytes


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One sandbox's CNI parameters. ``args`` as CNI_ARGS, ``capabilities`` by name."""

    container_id: str
    netns: str
    args: tuple[tuple[str, str], ...] = ()
    capabilities: dict[str, Any] = {}


class Cached(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """libcni's cache file (``cniCacheV1``)."""

    kind: str = ""
    container_id: str = ""
    config: str = ""
    if_name: str = ""
    network_name: str = ""
    netns: str = ""
    cni_args: list[list[str]] = []
    capability_args: dict[str, Any] = {}
    result: dict[str, Any] | None = None


def parse_list(raw: bytes, name: str) -> NetworkList:
    """A .conflist, or a single .conf wrapped into one. Raises NotConfigured."""
    try:
        conf = json.loads(raw)
        plugins = conf.get("plugins", [conf])
        wrong = not plugins or not all(isinstance(p, dict) and p.get("type") for p in plugins)
        if wrong or not conf.get("name"):
            raise ValueError("no name, or a plugin without a type")
    except (ValueError, TypeError, KeyError, AttributeError) as bad:
        raise NotConfigured(f"error parsing configuration list in {name}: {bad}") from bad
    return NetworkList(
        name=conf["name"], version=conf.get("cniVersion", "0.1.0"), plugins=tuple(plugins), raw=raw
    )


def load(folder: Path) -> NetworkList:
    """The network containerd would use. Raises NotConfigured."""
    try:
        files = sorted(f for f in folder.iterdir() if f.suffix in _SUFFIXES and not f.name.startswith("."))
    except OSError as gone:
        raise NotConfigured(f"no network config found in {folder}: {gone.strerror}") from gone
    if not files:
        raise NotConfigured(f"no network config found in {folder}: cni plugin not initialized")
    return parse_list(files[0].read_bytes(), str(files[0]))


def plugin_config(
    network: NetworkList, plugin: dict[str, Any], capabilities: Mapping[str, Any], previous: object = None
) -> bytes:
    """What one plugin reads on stdin."""
    declared = plugin.get("capabilities") or {}
    runtime = {key: capabilities[key] for key, on in declared.items() if on and key in capabilities}
    config = {**plugin, "name": network.name, "cniVersion": network.version}
    if runtime:
        config["runtimeConfig"] = runtime
    if previous is not None:
        config["prevResult"] = previous
    return json.dumps(config).encode()


def pod_call(pod: Pod, container_id: str, netns: str) -> Call:
    """The parameters containerd derives from a pod's sandbox configuration."""
    meta = pod.metadata
    args = (
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", meta.namespace),
        ("K8S_POD_NAME", meta.name),
        ("K8S_POD_INFRA_CONTAINER_ID", container_id),
        ("K8S_POD_UID", meta.uid),
    )
    annotations = meta.annotations or {}
    capabilities: dict[str, Any] = {"io.kubernetes.cri.pod-annotations": annotations}
    mappings = [
        {
            "hostPort": port.host_port,
            "containerPort": port.container_port,
            "protocol": port.protocol.lower(),
            "hostIP": port.host_ip,
        }
        for container in pod.spec.containers
        for port in container.ports or []
        if port.host_port
    ]
    if mappings:
        capabilities["portMappings"] = mappings
    if fixed := annotations.get(FIXED):
        capabilities["ips"] = fixed.split(",")
    if limits := bandwidth(annotations):
        capabilities["bandwidth"] = limits
    return Call(container_id=container_id, netns=netns, args=args, capabilities=capabilities)


def addresses(result: Mapping[str, Any]) -> list[str]:
    """The addresses a result of any version gives the pod, without prefix lengths, in its order."""
    found = [entry["address"] for entry in result.get("ips") or []]
    found += [result[key]["ip"] for key in ("ip4", "ip6") if result.get(key)]
    return [text.split("/")[0] for text in found]


def bandwidth(annotations: Mapping[str, str]) -> dict[str, int]:
    """The bandwidth capability from the pod's annotations. Raises CniFailed on an unreadable quantity."""
    limits: dict[str, int] = {}
    for way in ("ingress", "egress"):
        if text := annotations.get(f"kubernetes.io/{way}-bandwidth"):
            limits[f"{way}Rate"] = _quantity(text)
            limits[f"{way}Burst"] = _BURST
    return limits


def _quantity(text: str) -> int:
    number = text.rstrip("kMGTi")
    try:
        return int(float(number) * _SCALE[text[len(number) :]])
    except (ValueError, KeyError):
        raise CniFailed(f"unreadable bandwidth {text!r}") from None


class Cni:
    """CNI on one node."""

    def __init__(
        self,
        conf: Path = CONF_DIR,
        bin_dir: Path = BIN_DIR,
        cache: Path = CACHE_DIR,
        *,
        remember: bool = True,
    ) -> None:
        self._conf, self._bin, self._cache, self._remember = conf, bin_dir, cache, remember

    async def add(self, call: Call) -> dict[str, Any]:
        """ADD of every plugin in order; the result is cached before it is returned. Raises CniFailed."""
        network = load(self._conf)
        result: dict[str, Any] | None = None
        for plugin in network.plugins:
            config = plugin_config(network, plugin, call.capabilities, result)
            output = await self._execute("ADD", plugin, config, call)
            result = msgspec.json.decode(output) if output.strip() else {}
        if not addresses(result or {}):
            raise CniFailed(f"network {network.name!r} gave {IFNAME} no address")
        self._store(network, call, result or {})
        return result or {}

    async def delete(self, call: Call) -> None:
        """DEL of every plugin in reverse, with what the cache remembers. Raises CniFailed."""
        path = self._cache_path(call.container_id)
        cached = self._read(path)
        if cached:
            kept = parse_list(base64.b64decode(cached.config), "the cache")
            network = kept if self._remember else load(self._conf)
            args = tuple((k, v) for k, v in cached.cni_args)
            call = Call(
                container_id=call.container_id,
                netns=call.netns if Path(call.netns).exists() else "",
                args=args or call.args,
                capabilities=cached.capability_args,
            )
        else:
            network = load(self._conf)
        previous = cached.result if cached and _number(network.version) >= (0, 4) else None
        for plugin in reversed(network.plugins):
            config = plugin_config(network, plugin, call.capabilities, previous)
            await self._execute("DEL", plugin, config, call)
        if path:
            path.unlink(missing_ok=True)

    async def status(self) -> None:
        """Whether the network takes ADDs. Raises CniFailed (NotConfigured without configuration)."""
        network = load(self._conf)
        for plugin in network.plugins:
            if not (self._bin / plugin["type"]).exists():
                raise NotConfigured(f"failed to find plugin {plugin['type']!r} in path [{self._bin}]")
            if _number(network.version) >= (1, 1):
                await self._execute("STATUS", plugin, plugin_config(network, plugin, {}), None)

    def cached_ids(self) -> set[str]:
        """Container ids with a cached result."""
        found = (self._read(path) for path in self._cache.glob("*"))
        return {entry.container_id for entry in found if entry}

    def _store(self, network: NetworkList, call: Call, result: dict[str, Any]) -> None:
        entry = Cached(
            kind="cniCacheV1",
            container_id=call.container_id,
            config=base64.b64encode(network.raw).decode(),
            if_name=IFNAME,
            network_name=network.name,
            netns=call.netns,
            cni_args=[list(pair) for pair in call.args],
            capability_args=call.capabilities,
            result=result,
        )
        self._cache.mkdir(parents=True, exist_ok=True)
        path = self._cache / f"{network.name}-{call.container_id}-{IFNAME}"
        partial = path.with_name(f".{path.name}")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(entry))
        partial.replace(path)

    def _cache_path(self, container_id: str) -> Path | None:
        return next(iter(self._cache.glob(f"*-{container_id}-{IFNAME}")), None)

    def _read(self, path: Path | None) -> Cached | None:
        """A cache entry; a damaged one is deleted, as libcni does."""
        if path is None:
            return None
        try:
            return msgspec.json.decode(path.read_bytes(), type=Cached)
        except (OSError, msgspec.DecodeError):
            path.unlink(missing_ok=True)
            return None

    async def _execute(self, command: str, plugin: dict[str, Any], stdin: bytes, call: Call | None) -> bytes:
        env = {"CNI_COMMAND": command, "CNI_PATH": str(self._bin), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        if call:
            env |= {
                "CNI_CONTAINERID": call.container_id,
                "CNI_NETNS": call.netns,
                "CNI_IFNAME": IFNAME,
                "CNI_ARGS": ";".join(f"{k}={v}" for k, v in call.args),
            }
        try:
            process = await asyncio.create_subprocess_exec(
                str(self._bin / plugin["type"]),
                env=env,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as missing:
            raise NotConfigured(
                f"failed to find plugin {plugin['type']!r} in path [{self._bin}]"
            ) from missing
        try:
            stdout, stderr = await process.communicate(stdin)
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            raise CniFailed(
                f'plugin type="{plugin["type"]}" failed ({command.lower()}): {_reason(stdout, stderr)}'
            )
        return stdout


def _reason(stdout: bytes, stderr: bytes) -> str:
    """The error object on stdout as libcni words it, else whatever was printed."""
    try:
        error = json.loads(stdout)
        details = error.get("details") or ""
        return f"{error['msg']}{'; ' + details if details else ''} (code {error.get('code')})"
    except (ValueError, TypeError, KeyError, AttributeError):
        text = (stderr or stdout).decode(errors="replace").strip()
        return f"netplugin failed: {text[-500:] or 'no output'}"


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
