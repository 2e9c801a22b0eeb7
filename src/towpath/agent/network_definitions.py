"""NetworkAttachmentDefinitions: followed where the API server has the kind, read when a pod asks for one."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from towpath.api.networks import NetworkAttachmentDefinition
from towpath.kube.client import Client
from towpath.kube.codec import Key
from towpath.kube.discovery import resources
from towpath.kube.errors import KubeError, NotFound
from towpath.kube.kinds import Kind
from towpath.kube.reflector import Reflector, Selection
from towpath.log import get_logger
from towpath.multinet.choose import Lookup
from towpath.multinet.confine import Confinement
from towpath.multinet.definition import Definition, definition
from towpath.multinet.refusal import NetworkRefused

log = get_logger("towpath.networks")

T = TypeVar("T")

DEFINITIONS = Kind(
    plural="network-attachment-definitions", type=NetworkAttachmentDefinition, group="k8s.cni.cncf.io"
)
_ASK_AGAIN = 30.0
_ANSWER_WITHIN = 5.0
_SUFFIXES = (".conflist", ".conf", ".json")  # lists first (de-facto standard, 3.4.1)


class UnknownNetwork(NetworkRefused):
    """There is none of that name, as far as is known here."""

    def __init__(self, namespace: str, name: str, why: str = "") -> None:
        problem = (
            f"it cannot be looked up: {why}"
            if why
            else "there is no NetworkAttachmentDefinition of that name"
        )
        fix = "create it, or correct the pod's annotation; towpath net ls shows those there are"
        super().__init__("TP6002", f"network {namespace}/{name}", problem, fix)
        self.key: Key = (namespace, name)


class NetworkDefinitions:
    """The definitions of a cluster. ``folder`` has the node's CNI configurations, for empty ones."""

    def __init__(self, client: Client, silence: float, folder: Path, confinement: Confinement) -> None:
        self._client, self._silence = client, silence
        self._folder, self._confinement = folder, confinement
        self._following: tuple[Reflector[NetworkAttachmentDefinition], asyncio.Task[None]] | None = None
        self._soon = asyncio.Event()
        self._fetched: dict[Key, NetworkAttachmentDefinition] = {}
        self._read: dict[Key, tuple[NetworkAttachmentDefinition, Definition]] = {}

    async def run(self) -> None:
        """Follow for ever, from when the kind is there and as long as it is."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    found = await resources(self._client, {(DEFINITIONS.group, DEFINITIONS.version)})
                    served = any(DEFINITIONS.plural in plurals for plurals in found.values())
                    self._follow(tasks, served=served)
                except KubeError as error:
                    log.debug("network_kind_not_asked", error=str(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ASK_AGAIN):
                        await self._soon.wait()
                self._soon.clear()

    def _follow(self, tasks: asyncio.TaskGroup, *, served: bool) -> None:
        if served and self._following is None:
            reflector = Reflector(
                self._client, Selection(kind=DEFINITIONS), self._changed, silence=self._silence
            )
            self._following = reflector, tasks.create_task(reflector.run())
        elif not served and self._following is not None:
            self._following[1].cancel()
            self._following = None
            self._read.clear()

    def _changed(self, key: Key | None) -> None:
        if key is None:
            self._fetched.clear()
        else:
            self._fetched.pop(key, None)
            self._read.pop(key, None)

    def lookup(self, namespace: str, name: str) -> Definition:
        """From what is known. Raises UnknownNetwork, and then ``fetch`` may help; NetworkRefused."""
        key = (namespace, name)
        nad = self._object(key)
        if nad is None:
            raise UnknownNetwork(namespace, name)
        known = self._read.get(key)
        if known is not None and known[0] is nad:
            return known[1]
        found = definition(nad, self._confinement, self._on_disk)
        if nad.spec.config.strip():  # a file's content is read each time
            self._read[key] = nad, found
        return found

    async def complete(self, chosen: Callable[[Lookup], T]) -> T:
        """What ``chosen`` makes of the definitions; one that it misses is asked for. Raises as it does."""
        asked: set[Key] = set()
        while True:
            try:
                return chosen(self.lookup)
            except UnknownNetwork as unknown:
                if unknown.key in asked:
                    raise
                asked.add(unknown.key)
                await self.fetch(unknown.key)

    async def fetch(self, key: Key) -> None:
        """Ask for one that is not known yet. Raises UnknownNetwork."""
        namespace, name = key
        try:
            self._fetched[key] = await self._client.get(DEFINITIONS, name, namespace, timeout=_ANSWER_WITHIN)
            if self._following is None:  # the kind is new
                self._soon.set()
        except NotFound as error:
            raise UnknownNetwork(namespace, name) from error
        except KubeError as error:
            raise UnknownNetwork(namespace, name, str(error)) from error

    def readable(self) -> Iterator[Definition]:
        """Every definition that can be used."""
        followed = self._following[0].objects if self._following is not None else {}
        for namespace, name in list(followed):
            try:
                yield self.lookup(namespace, name)
            except NetworkRefused:
                continue

    def _object(self, key: Key) -> NetworkAttachmentDefinition | None:
        if self._following is not None and (found := self._following[0].objects.get(key)) is not None:
            return found
        return self._fetched.get(key)

    def _on_disk(self, name: str) -> bytes | None:
        """The configuration of that name in the folder; lists go first, then the order of the files."""
        try:
            files = sorted(p for p in self._folder.iterdir() if p.suffix in _SUFFIXES)
        except OSError:
            return None
        for file in sorted(files, key=lambda p: p.suffix != ".conflist"):
            try:
                content = file.read_bytes()
                document = msgspec.json.decode(content)
            except (OSError, msgspec.DecodeError):
                continue
            if isinstance(document, dict) and document.get("name") == name:
                return content
        return None
