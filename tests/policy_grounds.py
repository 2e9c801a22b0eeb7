"""The hand-chosen cases on a cluster, with real pods and packets: what is expected is the case's own word.

A *ground* is a set of the cases' three namespaces and nine pods, under names of its own. Cases run one after
the other on a ground, and grounds side by side: what is of the whole cluster is confined to its ground.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from random import Random
from typing import Any, Literal, NamedTuple, Protocol

from msgspec.structs import replace

from policy_cases import NAMESPACES, PODS, PORTS, Case, Manifest, Only, Step, named, resolved, truth
from towpath.kube.client import Client
from towpath.kube.errors import NotFound
from towpath.kube.kinds import Kind, Raw
from towpath.policy.sources import SOURCES

Destination = dict[str, Any]
"""``addr``, ``port``, ``proto``, as ``towpath lab``'s prober takes them."""

_SPACES: Kind[Raw] = Kind(plural="namespaces", type=dict, namespaced=False)
_PODS: Kind[Raw] = Kind(plural="pods", type=dict)
_ACCOUNTS: Kind[Raw] = Kind(plural="serviceaccounts", type=dict)
_KINDS: dict[tuple[str, str], Kind[Raw]] = {
    (source.group, source.kind): Kind(
        plural=source.plural,
        type=dict,
        group=source.group,
        version=source.versions[0],
        namespaced=source.namespaced,
    )
    for source in SOURCES
}
DECLARED = [
    {"name": f"serve-{port.replace('/', '-')}", "containerPort": int(port[:2]), "protocol": port[3:].upper()}
    for port in PORTS
]
# What an agent surely does in; a machine that is busy gets the rest.
_SETTLED, _PATIENCE = 0.3, 120.0
_TURNS = 2400  # of 0.1 s, until a pod is Ready or something is gone
_CONTROLS = 6
_LABEL = "ground"


class Arena(Protocol):
    """The cluster."""

    client: Client

    @property
    def ports(self) -> Sequence[str]:
        """Those of the cases' ports that can be asked for."""
        ...

    @property
    def nodes(self) -> Sequence[str]:
        """Where pods are put, in turn."""
        ...

    def template(self, name: str) -> Raw:
        """The spec of a pod that serves ``DECLARED``. ``name`` is of this one alone, in all namespaces."""
        ...

    async def ask(self, questions: Mapping[str, list[Destination]]) -> Mapping[str, list[bool]]:
        """Which destinations each pod, ``NAMESPACE/NAME``, has an answer from."""
        ...


@contextlib.asynccontextmanager
async def grounds(arena: Arena, number: int) -> AsyncIterator[list["Ground"]]:
    """Prepared; gone afterwards."""
    made = [Ground(arena, n) for n in range(number)]
    try:
        await asyncio.gather(*(ground.prepare() for ground in made))
        yield made
    finally:
        await asyncio.gather(*(ground.clear() for ground in made))


async def run_cases(here: Sequence["Ground"], cases: Iterable[Case]) -> dict[str, list[str]]:
    """By case, what was not as expected. Every other one is of IPv6."""
    queue = list(enumerate(cases))
    found: dict[str, list[str]] = {}

    async def play(ground: Ground) -> None:
        while next_one := next((one for one in queue if ground is here[0] or not _single(one[1])), None):
            queue.remove(next_one)
            number, case = next_one
            found[case.name] = await ground.run(case, 6 if number % 2 else 4)

    async with asyncio.TaskGroup() as tasks:
        for ground in here:
            tasks.create_task(play(ground))
    return found


def _single(case: Case) -> bool:
    """There is one baseline in a cluster."""
    return any(m["kind"] == "BaselineAdminNetworkPolicy" for step in case.steps for m in step.apply)


class Cell(NamedTuple):
    """A question, and what is to come of it."""

    source: str
    destination: str
    port: str
    open: bool

    def __str__(self) -> str:
        return f"{self.source} to {self.destination} {self.port} is {'shut' if self.open else 'open'}"


def cells_of(
    table: Mapping[tuple[str, str], set[str]], random: Random, asked: Sequence[str] = PORTS
) -> list[Cell]:
    """Every pair that is not wholly open, and some that are; all ports, where they are not all the same."""
    found: list[Cell] = []
    untouched = [pair for pair, ports in table.items() if ports == {*PORTS}]
    controls = random.sample(untouched, min(_CONTROLS, len(untouched)))
    for pair in sorted({*table} - {*untouched} | {*controls}):
        mixed = 0 < len(table[pair]) < len(PORTS)
        ports = asked if mixed else random.sample(asked, 2)
        found += [Cell(*pair, port, port in table[pair]) for port in ports]
    return found


class Ground:
    """Namespace ``x`` is called ``x-NUMBER``, and so on."""

    def __init__(self, arena: Arena, number: int) -> None:
        self.number = number
        self._arena, self._client = arena, arena.client
        self._family: Literal[4, 6] = 4
        self._labels: dict[str, dict[str, str]] = {}
        self._addresses: dict[str, list[str]] = {}
        self._applied: dict[str, Manifest] = {}

    async def prepare(self) -> None:
        """Its namespaces and pods are there, and Ready."""
        for name, labels in NAMESPACES.items():
            self._labels[f"Namespace {name}"] = labels
            meta = {"name": self._space(name), "labels": labels | {_LABEL: str(self.number)}}
            await self._client.create(_SPACES, {"metadata": meta})
        for name in NAMESPACES:
            await self._account(self._space(name))
        await self._create(PODS)

    async def clear(self) -> None:
        """Gone."""
        for name in NAMESPACES:
            with contextlib.suppress(NotFound):
                await self._client.delete(_SPACES, self._space(name))
        for name in NAMESPACES:
            await self._gone(_SPACES, self._space(name))

    async def run(self, case: Case, family: Literal[4, 6]) -> list[str]:
        """What is not as expected, up to the first step that is not. The ground is as before afterwards."""
        self._family = family
        random = Random(case.name)
        try:
            for number, step in enumerate(case.steps):
                await self._change(step)
                wrong = await self._compare(step.expected, random)
                if wrong:
                    return [f"step {number}, IPv{family}: {cell}" for cell in wrong]
        finally:
            await self._restore()
        return []

    async def _change(self, step: Step) -> None:
        for name in step.delete:
            if name.startswith("Pod "):
                await self._delete_pod(name.removeprefix("Pod "))
            else:
                await self._delete(name)
        await self._create(step.create)
        for name, labels in step.labels.items():
            await self._label(name, labels)
        for manifest in step.apply:
            await self._apply(manifest)

    async def _compare(self, expected: Iterable[Only], random: Random) -> list[Cell]:
        cells = cells_of(truth(expected, self._addresses), random, self._arena.ports)
        clock = asyncio.get_running_loop().time
        deadline = clock() + _PATIENCE
        while True:
            await asyncio.sleep(_SETTLED)
            wrong = await self._wrong(cells)
            if not wrong or clock() > deadline:
                return wrong

    async def _wrong(self, cells: list[Cell]) -> list[Cell]:
        asked: dict[str, list[Cell]] = {}
        for cell in cells:
            asked.setdefault(cell.source, []).append(cell)
        answers = await self._arena.ask(
            {self._own(source): [self._destination(cell) for cell in mine] for source, mine in asked.items()}
        )
        return [
            cell
            for source, mine in asked.items()
            for cell, reached in zip(mine, answers[self._own(source)], strict=True)
            if reached != cell.open
        ]

    def _destination(self, cell: Cell) -> Destination:
        port, _, protocol = cell.port.partition("/")
        return {"addr": self._address(cell.destination), "port": int(port), "proto": protocol}

    def _address(self, pod: str) -> str:
        return next(a for a in self._addresses[pod] if (":" in a) == (self._family == 6))

    async def _restore(self) -> None:
        for name in list(self._applied):
            await self._delete(name)
        for name in self._addresses.keys() - PODS.keys():
            await self._delete_pod(name)
        await self._create({name: labels for name, labels in PODS.items() if name not in self._addresses})
        originals = {f"Namespace {n}": labels for n, labels in NAMESPACES.items()}
        originals |= {f"Pod {n}": labels for n, labels in PODS.items()}
        for name, labels in originals.items():
            if self._labels[name] != labels:
                await self._label(name, labels)

    async def _apply(self, manifest: Manifest) -> None:
        """What there is already gets another spec, and stays the same object."""
        placed = self._placed(manifest)
        kind, meta = _kind(placed), placed["metadata"]
        name, before = named(manifest), self._applied.get(named(manifest))
        self._applied[name] = placed
        if before is None:
            await self._client.create(kind, placed)
        else:
            change = [{"op": "replace", "path": "/spec", "value": placed["spec"]}]
            await self._client.patch(kind, meta["name"], change, meta.get("namespace", ""), type="json")

    async def _delete(self, name: str) -> None:
        placed = self._applied.pop(name)
        meta = placed["metadata"]
        await self._client.delete(_kind(placed), meta["name"], meta.get("namespace", ""))

    async def _create(self, pods: Mapping[str, Mapping[str, str]]) -> None:
        for name, labels in pods.items():
            space, short = self._own(name).split("/")
            self._labels[f"Pod {name}"] = dict(labels)
            meta = {"name": short, "namespace": space, "labels": {**labels, _LABEL: str(self.number)}}
            node = self._arena.nodes["abcd".index(short) % len(self._arena.nodes)]
            spec = {**self._arena.template(f"{space}-{short}"), "nodeName": node}
            await self._client.create(
                _PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
            )
        for name in pods:
            self._addresses[name] = await self._ready(name)

    async def _ready(self, name: str) -> list[str]:
        space, short = self._own(name).split("/")
        for _ in range(_TURNS):
            status = (await self._client.get(_PODS, short, space)).get("status", {})
            conditions = {c["type"]: c["status"] for c in status.get("conditions") or []}
            if conditions.get("Ready") == "True":
                return [ip["ip"] for ip in status["podIPs"]]
            await asyncio.sleep(0.1)
        raise AssertionError(f"pod {space}/{short} is not Ready: {status}")

    async def _delete_pod(self, name: str) -> None:
        space, short = self._own(name).split("/")
        del self._addresses[name]
        await self._client.delete(_PODS, short, space, grace_seconds=0)
        await self._gone(_PODS, short, space)

    async def _account(self, space: str) -> None:
        """Without the namespace's ServiceAccount, upstream's API server takes no pod."""
        for _ in range(_TURNS):
            with contextlib.suppress(NotFound):
                await self._client.get(_ACCOUNTS, "default", space)
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"namespace {space} has no default ServiceAccount")

    async def _gone(self, kind: Kind[Raw], name: str, namespace: str = "") -> None:
        for _ in range(_TURNS):
            try:
                await self._client.get(kind, name, namespace)
            except NotFound:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{kind.plural} {namespace}/{name} does not go")

    async def _label(self, name: str, labels: Mapping[str, str]) -> None:
        kind, _, which = name.partition(" ")
        gone: dict[str, str | None] = dict.fromkeys(self._labels[name])
        body = {"metadata": {"labels": {**gone, **labels}}}
        self._labels[name] = dict(labels)
        if kind == "Namespace":
            await self._client.patch(_SPACES, self._space(which), body)
        else:
            space, short = self._own(which).split("/")
            await self._client.patch(_PODS, short, body, space)

    # Names.

    def _space(self, name: str) -> str:
        return f"{name}-{self.number}"

    def _own(self, pod: str) -> str:
        space, _, short = pod.partition("/")
        return f"{self._space(space)}/{short}"

    def _placed(self, manifest: Manifest) -> Manifest:
        """On this ground."""
        networks = {"all": "0.0.0.0/0" if self._family == 4 else "::/0"}
        for pod in self._addresses:
            networks[pod] = f"{self._address(pod)}/{32 if self._family == 4 else 128}"
        placed = resolved(manifest, networks)
        meta, spec = placed["metadata"], placed["spec"]
        if "namespace" in meta:
            meta["namespace"] = self._space(meta["namespace"])
        else:
            meta["name"] = self._confined(placed["kind"], meta["name"], spec)
        if spec.get("tier") == "early" or spec.get("tier") == "late":
            spec["tier"] = self._space(spec["tier"])
            meta["name"] = meta["name"].replace(".", f"-{self.number}.", 1)
        by_name = json.dumps(placed).replace('metadata.name": "z"', f'metadata.name": "{self._space("z")}"')
        found: Manifest = json.loads(by_name)
        return found

    def _confined(self, kind: str, name: str, spec: Manifest) -> str:
        """Its subjects are on this ground only. Returns its name."""
        if kind == "GlobalNetworkPolicy":
            spec["selector"] = f"({spec.get('selector', 'all()')}) && {_LABEL} == '{self.number}'"
        elif "subject" in spec:
            subject = spec["subject"]
            spaces = subject["pods"]["namespaceSelector"] if "pods" in subject else subject["namespaces"]
            spaces["matchLabels"] = {**spaces.get("matchLabels", {}), _LABEL: str(self.number)}
        if kind == "BaselineAdminNetworkPolicy":
            return name
        return self._space(name)


def _kind(manifest: Manifest) -> Kind[Raw]:
    group, _, version = manifest["apiVersion"].partition("/")
    return replace(_KINDS[group, manifest["kind"]], version=version)
