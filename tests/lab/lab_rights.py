"""What an installation grants its programs, and what they have asked a lab's API server for."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from lab_objects import Kubectl

from towpath.install.render import rules_of
from towpath.kube.client import Client
from towpath.kube.config import from_files
from towpath.lab.client import LabClient
from towpath.upgrade import plan as plans
from towpath.upgrade.rights import needed
from towpath.upgrade.survey import survey

Right = tuple[str, str, str]
"""Verb, group, resource with its subresource."""

# Granted to everybody by Kubernetes itself (system:basic-user).
EVERYBODYS: Right = ("create", "authorization.k8s.io", "selfsubjectaccessreviews")
# Of a conductor: where it may not, it says so at its end and is none the worse.
TELLING: Right = ("create", "", "events")


def granted(settings: Mapping[str, object]) -> set[Right]:
    """By the ClusterRole of an agent with these settings."""
    return of_rules(rules_of(settings))


def of_rules(rules: Iterable[Mapping[str, Any]]) -> set[Right]:
    """By the rules of a role."""
    return {
        (verb, group, resource)
        for rule in rules
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def asked(kubectl: Kubectl, client: str = "towpath-agent") -> set[Right]:
    """By all programs of this name since the lab came up, or by all that were this user."""
    recorded = json.loads(kubectl("get", "--raw", "/lab/asked"))
    return {(verb, group, resource) for verb, group, resource in recorded.get(client, ())}


class Account:
    """A service account of a lab, which is made if need be; ``kubeconfig`` of whoever is it."""

    def __init__(self, lab: LabClient, kubectl: Kubectl, name: str, namespace: str = "default") -> None:
        self._kubectl, self.user = kubectl, f"system:serviceaccount:{namespace}:{name}"
        meta = {"name": name, "namespace": namespace}
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}
        kubectl("apply", "-f", "-", stdin=json.dumps(account))
        asking = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        issued = json.loads(kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(asking)))
        config = yaml.safe_load(Path(lab.kubeconfig).read_text())
        config["users"][0]["user"] = {"token": issued["status"]["token"]}
        file = Path(lab.kubeconfig).with_name(f"{name}.kubeconfig")  # where a lab is known by
        file.write_text(yaml.safe_dump(config))
        self.kubeconfig = str(file)

    def asked(self) -> set[Right]:
        """Since the lab came up."""
        return asked(self._kubectl, self.user)


def looked(lab: LabClient, kubectl: Kubectl) -> set[Right]:
    """What it takes to look at the whole cluster, as a conductor does before it begins: what it may not see
    is told there and then.
    """
    account = Account(lab, kubectl, "surveyor")

    async def look() -> None:
        async with Client(from_files([Path(account.kubeconfig)])) as client:
            await survey(client, datetime.now(UTC), lambda _: None)

    asyncio.run(look())
    return account.asked()


def planned(file: Path) -> set[Right]:
    """What the conductor of a plan makes sure of before it begins."""
    rights = needed(plans.load(file.read_bytes()))
    return {(right.verb, right.group, right.resource) for right in rights}
