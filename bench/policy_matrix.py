"""The full matrix by class for 1 500 pods and 400 NetworkPolicies; network-config-analyzer on a tenth of it.

That takes some seconds for the tenth and minutes for the whole. Both read the same manifests. Prints JSON.
"""

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

import yaml

from towpath.policy.matrix import matrix
from towpath.policy.world import assemble

PODS, POLICIES, TENTH = 1_500, 400, 10
NAMESPACES = 50


def manifests(pods: int, policies: int) -> dict[str, list[dict[str, Any]]]:
    """Pods of many applications in namespaces; each policy selects one, and lets in two and a network."""
    random = Random(1)
    apps = [(f"ns{random.randrange(NAMESPACES)}", f"app{n}") for n in range(pods // 4)]
    namespaces = [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": f"ns{n}", "labels": {"name": f"ns{n}"}},
        }
        for n in range(NAMESPACES)
    ]
    return {
        "namespaces": namespaces,
        "endpoints": [_pod(number, *random.choice(apps)) for number in range(pods)],
        "policies": [_policy(number, random, apps) for number in range(policies)],
    }


def _pod(number: int, namespace: str, app: str) -> dict[str, Any]:
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{app}-{number}", "namespace": namespace, "labels": {"app": app}},
        "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "none"}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": "192.0.2.1"},
    }


def _policy(number: int, random: Random, apps: list[tuple[str, str]]) -> dict[str, Any]:
    (namespace, app), *others = random.choices(apps, k=3)
    ports = random.sample((80, 443, 5432, 6379, 9090), 2)
    rules: list[dict[str, Any]] = [
        {
            "from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": other}}}],
            "ports": [{"protocol": "TCP", "port": port}],
        }
        for (_, other), port in zip(others, ports, strict=True)
    ]
    rules.append({"from": [{"ipBlock": {"cidr": f"172.16.{number & 255}.0/24"}}]})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"p{number}", "namespace": namespace},
        "spec": {
            "podSelector": {"matchLabels": {"app": app}},
            "policyTypes": ["Ingress"],
            "ingress": rules,
        },
    }


def analyzed(found: dict[str, list[dict[str, Any]]]) -> float:
    """Seconds that the other program takes for its connectivity map."""
    from nca.NetworkConfig.ResourcesHandler import ResourcesHandler

    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for name, objects in found.items():
            path = Path(folder) / f"{name}.yaml"
            path.write_text(yaml.safe_dump_all(objects))
            paths[name] = [str(path)]
        begun = perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            config = ResourcesHandler().get_network_config(
                paths["policies"], paths["namespaces"], paths["endpoints"], None, "bench"
            )
            config.allowed_connections()
        return perf_counter() - begun


def drawn(found: dict[str, list[dict[str, Any]]]) -> float:
    """Seconds from the assembled world to the matrix."""
    world = assemble([one for objects in found.values() for one in objects]).world
    begun = perf_counter()
    matrix(world)
    return perf_counter() - begun


def main() -> None:
    """The whole, and a tenth by both."""
    whole, tenth = manifests(PODS, POLICIES), manifests(PODS // TENTH, POLICIES // TENTH)
    result = {"seconds": round(min(drawn(whole) for _ in range(3)), 3), "tenth_s": round(drawn(tenth), 3)}
    print(f"matrix {result['seconds']} s; the peer goes through a tenth", file=sys.stderr)
    result["nca_tenth_s"] = round(analyzed(tenth), 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
