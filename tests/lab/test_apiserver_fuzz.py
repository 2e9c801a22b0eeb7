"""Whatever a client sends, the answer is an object or a Status below 500: valid objects, damaged."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apiserver_samples import SAMPLES

from towpath.lab.apiserver.app import dispatch
from towpath.lab.apiserver.bootstrap import bootstrap
from towpath.lab.apiserver.builtins import builtin_registry
from towpath.lab.apiserver.call import Call, Server, User
from towpath.lab.apiserver.errors import ApiError
from towpath.lab.apiserver.paths import Target
from towpath.lab.apiserver.render import view_of
from towpath.lab.apiserver.resources import Resource
from towpath.lab.apiserver.services import Allocator
from towpath.lab.apiserver.store import Store

Obj = dict[str, Any]
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
JSON = "application/json"
UPDATES = (
    ("PUT", JSON),
    ("PATCH", "application/merge-patch+json"),
    ("PATCH", "application/strategic-merge-patch+json"),
    ("PATCH", "application/apply-patch+yaml"),
)
JUNK: list[Any] = [
    None, "x", "", "None", "10%", 5, -1, 0, 1.5, 99999999999, True, [], {}, [None], [{}], [1], {"a": None},
    {"a": 1},
    {"matchLabels": {"z": "z"}},
]  # fmt: skip
ROUNDS = 20
KINDS = [r for r in builtin_registry() if r.kind in SAMPLES]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    store = Store(tmp_path / "state.db")
    services = Allocator.of("10.43.0.0/16,fd00:10:43::/112")
    made = Server(store, builtin_registry(), {}, services, tmp_path)
    bootstrap(made, [])
    yield made
    store.close()


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in parts:
        yield from paths(child, (*at, key))


def damaged(obj: Obj, chance: random.Random) -> Obj:
    """The object with up to three of its parts gone or replaced."""
    obj = copy.deepcopy(obj)
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        *parents, last = chance.choice(list(paths(obj)))
        part: Any = obj
        for key in parents:
            part = part[key]
        if chance.random() < 0.3:
            del part[last]
        else:
            part[last] = copy.deepcopy(chance.choice(JUNK))
    return obj


def answer(server: Server, r: Resource, method: str, name: str, body: Any, media: str, sub: str = "") -> int:
    """Status of a request; anything but an ApiError is a bug."""
    namespace = "default" if r.namespaced else ""
    target = Target(r.group, r.version, r.plural, namespace, name, sub)
    query = {"fieldManager": "fuzz", "force": "true"}
    call = Call(r, target, query, User("u"), "", media, json.dumps(body).encode(), "fuzz")
    try:
        return dispatch(server, call, method).status
    except ApiError as e:
        assert e.code < 500, e.message
        return e.code


def table(server: Server, r: Resource) -> None:
    call = Call(r, Target(r.group, r.version, r.plural), {}, User("u"), TABLE)
    view_of(server, call).many({}, server.store.list(r.bucket))


def customs(server: Server, chance: random.Random) -> None:
    """Objects of whatever the damaged definition defines."""
    for r in [x for x in server.registry if not x.type]:
        spec = {"a": 3, "l": [{"k": "x"}]}
        obj = {"apiVersion": r.api_version, "kind": r.kind, "metadata": {"name": "q"}, "spec": spec}
        answer(server, r, "POST", "", damaged(obj, chance), JSON)
        for method, media in UPDATES:
            answer(server, r, method, "q", damaged(obj, chance), media)
        table(server, r)


@pytest.mark.parametrize("resource", KINDS, ids=[f"{r.group}.{r.kind}" for r in KINDS])
def test_no_body_breaks_the_server(server: Server, resource: Resource) -> None:
    r, chance = resource, random.Random(resource.kind)
    sample = SAMPLES[r.kind]
    obj = {"apiVersion": r.api_version, "kind": r.kind, **sample}
    obj["metadata"] = {"name": "a", **sample.get("metadata", {})}
    name = obj["metadata"]["name"]
    namespace = "default" if r.namespaced else ""
    assert answer(server, r, "POST", "", obj, JSON) == 201
    for _ in range(ROUNDS):
        for method, media in UPDATES:
            answer(server, r, method, name, damaged(obj, chance), media)
            if r.sub("status"):
                answer(server, r, method, name, damaged(obj, chance), media, "status")
            if r.kind == "CustomResourceDefinition":
                customs(server, chance)
        table(server, r)
        if server.store.get(r.bucket, namespace, name):
            server.store.remove(r.bucket, namespace, name)
        if answer(server, r, "POST", "", damaged(obj, chance), JSON) != 201:
            answer(server, r, "POST", "", obj, JSON)
