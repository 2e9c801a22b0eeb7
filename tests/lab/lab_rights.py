"""What an installation grants its agents, and what the lab's agents have asked for."""

import json
from collections.abc import Mapping
from typing import Any

from lab_objects import Kubectl

from towpath.install.render import rules_of

Right = tuple[str, str, str]
"""Verb, group, resource with its subresource."""


def granted(settings: Mapping[str, object]) -> set[Right]:
    """By the ClusterRole of an agent with these settings."""
    found: set[Right] = set()
    for rule in rules_of(settings):
        known: Mapping[str, Any] = rule
        found |= {(verb, group, resource) for verb in known["verbs"] for group in known["apiGroups"]
                  for resource in known["resources"]}  # fmt: skip
    return found


def asked(kubectl: Kubectl, client: str = "towpath-agent") -> set[Right]:
    """By all programs of this name since the lab came up."""
    recorded = json.loads(kubectl("get", "--raw", "/lab/asked"))
    return {(verb, group, resource) for verb, group, resource in recorded[client]}
