"""What a container is told: environment, arguments, files from config maps, secrets and the pod itself."""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from towpath.kube.client import Client
from towpath.kube.errors import NotFound
from towpath.kube.kinds import CONFIG_MAPS, Kind, Raw
from towpath.lab.kubelet_spec import Container, EnvSource, FilesOf, KeySelector, KeyToPath, Pod, Volume
from towpath.lab.rootfs import Mount

SECRETS: Kind[Raw] = Kind(plural="secrets", type=dict)
_TOKENS: Kind[Raw] = Kind(plural="serviceaccounts", type=dict)

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
_FIELD = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")


class MissingReference(Exception):
    """A container cannot start: what it refers to does not exist (kubelet: CreateContainerConfigError)."""


def expand(text: str, env: Mapping[str, str]) -> str:
    """``$(NAME)`` from the environment; unknown names stay, ``$$`` is a dollar sign."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else env.get(match[1], match[0])

    return _REFERENCE.sub(value, text)


def field(pod: Pod, path: str, pod_ips: list[str], host_ips: list[str]) -> str:
    """A ``fieldRef``. Raises MissingReference for a path the downward API does not have."""
    meta = pod.metadata
    if match := _FIELD.match(path):
        source = meta.labels if match[1] == "labels" else meta.annotations
        return (source or {}).get(match[2], "")
    simple = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "metadata.labels": _lines(meta.labels),
        "metadata.annotations": _lines(meta.annotations),
        "spec.nodeName": pod.spec.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name,
        "status.podIP": pod_ips[0] if pod_ips else "",
        "status.podIPs": ",".join(pod_ips),
        "status.hostIP": host_ips[0],
        "status.hostIPs": ",".join(host_ips),
    }
    try:
        return simple[path]
    except KeyError:
        raise MissingReference(f"unsupported fieldPath {path!r}") from None


class Values:
    """Resolves references for one pod. ``defaults`` is the environment every container gets."""

    def __init__(
        self, client: Client, pod: Pod, pod_ips: list[str], host_ips: list[str], defaults: dict[str, str]
    ) -> None:
        self._client, self._pod, self._defaults = client, pod, defaults
        self._pod_ips, self._host_ips = pod_ips, host_ips
        self._cache: dict[tuple[str, str], dict[str, bytes] | None] = {}

    async def environment(self, container: Container) -> dict[str, str]:
        """The container's environment. Raises MissingReference, kube errors."""
        env = dict(self._defaults)
        for source in container.env_from or []:
            for kind, ref in ((CONFIG_MAPS, source.config_map_ref), (SECRETS, source.secret_ref)):
                if ref:
                    data = await self._data(kind, ref.name, bool(ref.optional))
                    env |= {source.prefix + key: value.decode() for key, value in data.items()}
        for variable in container.env or []:
            if variable.value_from:
                value = await self._from(variable.value_from)
                if value is not None:
                    env[variable.name] = value
            else:
                env[variable.name] = expand(variable.value or "", env)
        return env

    async def mounts(self, container: Container, folder: Path) -> list[Mount]:
        """Prepare the volumes the container mounts, below ``folder``. Raises MissingReference, OSError."""
        volumes = {volume.name: volume for volume in self._pod.spec.volumes or []}
        result = []
        for wanted in container.volume_mounts or []:
            volume = volumes.get(wanted.name)
            if volume is None:
                raise MissingReference(f"no volume {wanted.name!r}")
            source = await self._prepare(volume, folder / wanted.name)
            if wanted.sub_path:
                source = source / expand(wanted.sub_path, {})
            result.append(
                Mount(source=str(source), target=wanted.mount_path, read_only=bool(wanted.read_only))
            )
        return result

    async def _prepare(self, volume: Volume, folder: Path) -> Path:
        if volume.host_path:
            path = Path(volume.host_path.path)
            if volume.host_path.type == "DirectoryOrCreate":
                path.mkdir(parents=True, exist_ok=True)
            elif volume.host_path.type == "FileOrCreate":
                path.touch(mode=0o644)
            elif not path.exists():
                raise MissingReference(f"hostPath {path} does not exist on the node")
            return path
        folder.mkdir(parents=True, exist_ok=True)
        for kind, files in self._sources(volume):
            for name, content in (await self._files(kind, files)).items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
        return folder

    def _sources(self, volume: Volume) -> list[tuple[str, FilesOf]]:
        found: list[tuple[str, FilesOf | None]] = [
            ("configmap", volume.config_map),
            ("secret", volume.secret),
            ("downward", volume.downward_api),
        ]
        for projection in (volume.projected.sources if volume.projected else None) or []:
            found += [
                ("configmap", projection.config_map),
                ("secret", projection.secret),
                ("downward", projection.downward_api),
            ]
            if projection.service_account_token:
                found.append(
                    ("token", FilesOf(items=[KeyToPath(path=projection.service_account_token.path)]))
                )
        return [(kind, files) for kind, files in found if files]

    async def _files(self, kind: str, files: FilesOf) -> dict[str, bytes]:
        if kind == "downward":
            return {
                item.path: self._field(item.field_ref.field_path if item.field_ref else "").encode()
                for item in files.items or []
            }
        if kind == "token":
            return {item.path: await self._token() for item in files.items or []}
        source = CONFIG_MAPS if kind == "configmap" else SECRETS
        data = await self._data(source, files.name or files.secret_name, bool(files.optional))
        if files.items is None:
            return data
        missing = [item.key for item in files.items if item.key not in data]
        if missing and not files.optional:
            raise MissingReference(f"{kind} {files.name or files.secret_name!r} has no key {missing[0]!r}")
        return {item.path: data[item.key] for item in files.items if item.key in data}

    async def _token(self) -> bytes:
        meta = self._pod.metadata
        account = self._pod.spec.service_account_name or "default"
        # A kubelet may ask for tokens of pods on its node only, and must name the pod (NodeRestriction).
        bound = {"apiVersion": "v1", "kind": "Pod", "name": meta.name, "uid": meta.uid}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"name": account, "namespace": meta.namespace},
            "spec": {"audiences": [], "boundObjectRef": bound},
        }
        made = await self._client.create(_TOKENS, request, meta.namespace, subresource="token")
        return str(made["status"]["token"]).encode()

    def _field(self, path: str) -> str:
        return field(self._pod, path, self._pod_ips, self._host_ips)

    async def _from(self, source: EnvSource) -> str | None:
        if source.field_ref:
            return self._field(source.field_ref.field_path)
        for kind, ref in ((CONFIG_MAPS, source.config_map_key_ref), (SECRETS, source.secret_key_ref)):
            if ref:
                return await self._key(kind, ref)
        raise MissingReference("valueFrom of a kind the lab does not have")

    async def _key(self, kind: Kind[Raw], ref: KeySelector) -> str | None:
        data = await self._data(kind, ref.name, bool(ref.optional))
        if ref.key in data:
            return data[ref.key].decode()
        if ref.optional:
            return None
        raise MissingReference(f"{kind.plural} {ref.name!r} has no key {ref.key!r}")

    async def _data(self, kind: Kind[Raw], name: str, optional: bool) -> dict[str, bytes]:
        at = (kind.plural, name)
        if at not in self._cache:
            try:
                obj: dict[str, Any] | None = await self._client.get(kind, name, self._pod.metadata.namespace)
            except NotFound:
                obj = None
            self._cache[at] = _decoded(kind, obj) if obj is not None else None
        data = self._cache[at]
        if data is None and not optional:
            raise MissingReference(f"{kind.plural.removesuffix('s')} {name!r} not found")
        return data or {}


def _decoded(kind: Kind[Raw], obj: dict[str, Any]) -> dict[str, bytes]:
    if kind is SECRETS:
        return {key: base64.b64decode(value) for key, value in (obj.get("data") or {}).items()}
    text = {key: value.encode() for key, value in (obj.get("data") or {}).items()}
    binary = {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}
    return text | binary


def _lines(values: Mapping[str, str] | None) -> str:
    return "\n".join(f'{key}="{value}"' for key, value in sorted((values or {}).items()))
