"""Discovery: what is served, in the legacy documents and in the aggregated one."""

from towpath.lab.apiserver.errors import Obj, no_such_path
from towpath.lab.apiserver.resources import Registry, Resource

VERSION = {
    "major": "1",
    "minor": "33",
    "gitVersion": "v1.33.0+towpath",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-11-23T00:00:00Z",
    "goVersion": "none",
    "compiler": "python",
    "platform": "linux/amd64",
}


def api_versions() -> Obj:
    """``GET /api``."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
    }


def _group(name: str, versions: list[str]) -> Obj:
    listed = [{"groupVersion": f"{name}/{v}", "version": v} for v in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def group_list(registry: Registry) -> Obj:
    """``GET /apis``."""
    groups = [_group(g, v) for g, v in registry.group_versions().items() if g]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(registry: Registry, name: str) -> Obj:
    """``GET /apis/GROUP``. Raises ApiError 404."""
    versions = registry.group_versions().get(name)
    if not versions or not name:
        raise no_such_path()
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)}


def resource_list(registry: Registry, group_name: str, version: str) -> Obj:
    """``GET /apis/GROUP/VERSION`` and ``/api/v1``. Raises ApiError 404."""
    found = registry.of(group_name, version)
    if not found:
        raise no_such_path()
    items: list[Obj] = []
    for r in found:
        item: Obj = {
            "name": r.plural,
            "singularName": r.singular,
            "namespaced": r.namespaced,
            "kind": r.kind,
            "verbs": list(r.verbs),
        }
        if r.short:
            item["shortNames"] = list(r.short)
        if r.categories:
            item["categories"] = list(r.categories)
        items.append(item)
        for s in r.subresources:
            sub: Obj = {
                "name": f"{r.plural}/{s.name}",
                "singularName": "",
                "namespaced": r.namespaced,
                "kind": s.kind,
                "verbs": list(s.verbs),
            }
            if s.version:
                sub |= {"group": s.group, "version": s.version}
            items.append(sub)
    gv = f"{group_name}/{version}" if group_name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": gv, "resources": items}


def _aggregated(r: Resource) -> Obj:
    item: Obj = {
        "resource": r.plural,
        "responseKind": {"group": r.group, "version": r.version, "kind": r.kind},
        "scope": "Namespaced" if r.namespaced else "Cluster",
        "singularResource": r.singular,
        "verbs": list(r.verbs),
    }
    if r.short:
        item["shortNames"] = list(r.short)
    if r.categories:
        item["categories"] = list(r.categories)
    if r.subresources:
        item["subresources"] = [
            {
                "subresource": s.name,
                "responseKind": {
                    "group": s.group if s.version else r.group,
                    "version": s.version or r.version,
                    "kind": s.kind,
                },
                "verbs": list(s.verbs),
            }
            for s in r.subresources
        ]
    return item


def aggregated(registry: Registry, core: bool, version: str) -> Obj:
    """``GET /api`` or ``/apis`` as APIGroupDiscoveryList; ``version`` is v2 or v2beta1."""
    items: list[Obj] = []
    for name, versions in registry.group_versions().items():
        if (name == "") != core:
            continue
        listed = [
            {
                "version": v,
                "resources": [_aggregated(r) for r in registry.of(name, v)],
                "freshness": "Current",
            }
            for v in versions
        ]
        items.append({"metadata": {"name": name, "creationTimestamp": None}, "versions": listed})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": items,
    }
