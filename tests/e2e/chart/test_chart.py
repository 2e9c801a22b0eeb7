"""Helm itself, a library from PyPI (`make chart`), makes of the chart what ``install render`` prints."""

import asyncio
import base64
import ctypes
import json
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from aiohttp import web

from towpath.install.compare import differences
from towpath.install.render import Object, render
from towpath.install.values import values
from towpath.kube.client import Client
from towpath.kube.config import from_files
from towpath.kube.kinds import Kind, Raw
from towpath.lab.apiserver.app import application
from towpath.lab.apiserver.bootstrap import bootstrap
from towpath.lab.apiserver.builtins import builtin_registry
from towpath.lab.apiserver.call import Server, User
from towpath.lab.apiserver.services import Allocator
from towpath.lab.apiserver.store import Store

ROOT = Path(__file__).parents[3]
PLURALS = {
    "ServiceAccount": "serviceaccounts",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "ConfigMap": "configmaps",
    "DaemonSet": "daemonsets",
    "Service": "services",
}
CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything else": {
        "cluster_cidrs": ["10.42.0.0/16", "fd00:42::/56"],
        "backend": "host-gw",
        "uid": 20000,
        "gid": 20001,
        "selinux_type": "spc_t",
        "migrating": True,
        "update_strategy": "OnDelete",
        "agent": {"log_level": "debug", "state_dir": "/x"},
        "state": "/srv/t",
        "image": "example.org/a:v1",
        "conflist": "05-x.conflist",
        "health_port": 9999,
        "namespace": "network",
        "metrics_tls_secret": "tls",
        "dashboard": True,
    },
    "IPv6 only": {"cluster_cidrs": ["fd00:42::/56"], "direct_routing": True, "vni": 7, "port": 4789},
}


class Helm:
    """Helm's own library, by its C functions."""

    def __init__(self, kubeconfig: str, namespace: str) -> None:
        (library,) = (ROOT / "build/helm/helm_sdkpy/_lib").glob("linux-*/libhelm_sdkpy.so")
        self._helm = ctypes.CDLL(str(library))
        self._helm.helm_sdkpy_last_error.restype = ctypes.c_char_p
        self._handle = ctypes.c_ulonglong()
        words = [namespace.encode(), kubeconfig.encode(), None, b"{}"]
        self._checked(self._helm.helm_sdkpy_config_create(*words, ctypes.byref(self._handle)))

    def install(self, given: dict[str, Any]) -> None:
        """Raises RuntimeError with Helm's words."""
        out = ctypes.c_char_p()
        words = [
            b"towpath",
            str(ROOT / "charts/towpath").encode(),
            json.dumps(given).encode(),
            b"",
            b'{"wait": false}',
        ]
        self._checked(self._helm.helm_sdkpy_install(self._handle, *words, ctypes.byref(out)))

    def _checked(self, result: int) -> None:
        if result:
            raise RuntimeError((self._helm.helm_sdkpy_last_error() or b"").decode())


@asynccontextmanager
async def api_server(folder: Path) -> AsyncIterator[Path]:
    """The lab's, with TLS: Helm sends no token without. Yields a kubeconfig."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    store = Store(folder / "state.db")
    services = Allocator.of("10.43.0.0/16")
    users = {"token": User("admin", "1", ("system:masters",))}
    server = Server(store, builtin_registry(), users, services, folder / "nodes")
    bootstrap(server, ["172.30.0.1"])
    runner = web.AppRunner(application(server), access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    trusted = base64.b64encode(authority.cert_pem.bytes()).decode()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority-data": trusted}}],
        "users": [{"name": "u", "user": {"token": "token"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    try:
        yield folder / "kubeconfig"
    finally:
        await runner.cleanup()
        store.close()


async def in_process(kubeconfig: Path, namespace: str, given: dict[str, Any]) -> str:
    """Helm in a process of its own (Go's runtime stays where it was loaded); what it complains of."""
    command = [sys.executable, __file__, str(kubeconfig), namespace, json.dumps(given)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    return said.decode() if process.returncode else ""


def client_of(kubeconfig: Path) -> Client:
    """An administrator's."""
    return Client(from_files([kubeconfig]), user_agent="test")


def parsed(data: dict[str, str]) -> dict[str, Any]:
    """A ConfigMap's files, whatever order their keys have."""
    return {name: yaml.safe_load(text) for name, text in data.items()}


async def found(client: Client, wanted: Object) -> list[str]:
    """What the cluster has otherwise."""
    group, _, version = wanted["apiVersion"].rpartition("/")
    metadata = wanted["metadata"]
    kind: Kind[Raw] = Kind(
        plural=PLURALS[wanted["kind"]],
        type=dict,
        group=group,
        version=version,
        namespaced="namespace" in metadata,
    )
    there = await client.get(kind, metadata["name"], metadata.get("namespace", ""))
    if wanted["kind"] == "ConfigMap":  # yaml reads the dashboard's JSON, too
        return [] if parsed(wanted["data"]) == parsed(there["data"]) else ["data"]
    # of the same settings, written otherwise
    return [line for line in differences(wanted, there) if "annotations.towpath.dev/config" not in line]


@pytest.mark.parametrize("name", CASES)
async def test_helm_makes_what_is_rendered(tmp_path: Path, name: str) -> None:
    given = CASES[name]
    namespace = given.get("namespace", "kube-system")
    spaces: Kind[Raw] = Kind(plural="namespaces", type=dict, namespaced=False)
    async with api_server(tmp_path) as kubeconfig, client_of(kubeconfig) as client:
        if namespace != "kube-system":
            await client.create(spaces, {"metadata": {"name": namespace}})
        assert await in_process(kubeconfig, namespace, given) == ""
        for wanted in render(values(given)):
            assert await found(client, wanted) == [], wanted["kind"]


@pytest.mark.parametrize("given", [{"uid": "ten"}, {"backend": "wireguard"}, {"unknown": 1}])
async def test_the_schema_refuses(tmp_path: Path, given: dict[str, Any]) -> None:
    async with api_server(tmp_path) as kubeconfig:
        said = await in_process(kubeconfig, "kube-system", given)
        assert next(iter(given)) in said


async def test_a_registry_that_rke2_names_comes_before_the_image(tmp_path: Path) -> None:
    given = {"global": {"systemDefaultRegistry": "registry.example.org"}}
    kind: Kind[Raw] = Kind(plural="daemonsets", type=dict, group="apps")
    async with api_server(tmp_path) as kubeconfig, client_of(kubeconfig) as client:
        assert await in_process(kubeconfig, "kube-system", given) == ""
        there = await client.get(kind, "towpath", "kube-system")
        image = there["spec"]["template"]["spec"]["containers"][0]["image"]
        assert image.startswith("registry.example.org/towpath/towpath-agent:v")


if __name__ == "__main__":
    Helm(sys.argv[1], sys.argv[2]).install(json.loads(sys.argv[3]))
