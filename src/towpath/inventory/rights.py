"""What the service account of a network's DaemonSet may do in the whole cluster, by RBAC's objects. Pure."""

from collections.abc import Iterable
from typing import Any

import msgspec

Raw = dict[str, Any]


class Rule(msgspec.Struct, frozen=True):
    """One rule of a ClusterRole; ``*`` stands for all. ``names`` empty: whatever the object is called."""

    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def allows(self, verb: str, group: str, resource: str) -> bool:
        """``resource`` may be ``pods/status``. A rule for certain names allows too: they are its own."""
        _, _, sub = resource.partition("/")
        return (
            bool({verb, "*"} & set(self.verbs))
            and bool({group, "*"} & set(self.groups))
            and bool({resource, "*", f"*/{sub}" if sub else resource} & set(self.resources))
        )


def rules_of(namespace: str, account: str, bindings: Iterable[Raw], roles: Iterable[Raw]) -> tuple[Rule, ...]:
    """Of all ClusterRoles that ClusterRoleBindings give to the account or to a group it belongs to."""
    groups = {"system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"}

    def its(subject: Raw) -> bool:
        if subject.get("kind") == "Group":
            return subject.get("name") in groups
        return (subject.get("kind"), subject.get("namespace"), subject.get("name")) == (
            "ServiceAccount",
            namespace,
            account,
        )

    names = {
        binding["roleRef"]["name"] for binding in bindings if any(map(its, binding.get("subjects") or ()))
    }
    return tuple(
        Rule(
            tuple(rule.get("apiGroups") or ()),
            tuple(rule.get("resources") or ()),
            tuple(rule.get("verbs") or ()),
            tuple(rule.get("resourceNames") or ()),
        )
        for role in roles
        if role["metadata"]["name"] in names
        for rule in role.get("rules") or ()
        if rule.get("resources")
    )
