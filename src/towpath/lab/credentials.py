"""Identities of the lab: who may talk to its API server, as which user."""

import csv
import io
import secrets
from pathlib import Path

from towpath.kube.config import ClientConfig
from towpath.lab import topology
from towpath.lab.apiserver.kubeconfig import kubeconfig
from towpath.lab.apiserver.pki import ensure_pki
from towpath.lab.rootfs import STATE
from towpath.lab.topology import LabSpec

ADMIN, CONTROLLERS = "kubernetes-admin", "system:kube-controller-manager"
AGENT = "system:serviceaccount:kube-system:towpath"


def node_user(node: str) -> str:
    """The user name of a node's kubelet."""
    return f"system:node:{node}"


def create(spec: LabSpec, state: Path = STATE) -> None:
    """Certificate authority, server certificate and a token for everybody, on the lab's tmpfs."""
    addresses = [str(i.ip) for s in spec.segments for i in topology.segment_gateways(spec, s)]
    ensure_pki(state / "pki", addresses)
    users = [
        (ADMIN, "system:masters"),
        (CONTROLLERS, "system:masters"),
        (AGENT, "system:serviceaccounts,system:serviceaccounts:kube-system"),
        *((node_user(node.name), "system:nodes") for node in spec.nodes),
    ]
    table = io.StringIO()
    writer = csv.writer(table)
    for number, (user, groups) in enumerate(users):
        writer.writerow([secrets.token_urlsafe(24), user, number, groups])
    path = state / "tokens.csv"
    path.touch(mode=0o600)
    path.write_text(table.getvalue())


def token(user: str, state: Path = STATE) -> str:
    """The user's token. Raises KeyError."""
    with (state / "tokens.csv").open(newline="") as file:
        return {row[1]: row[0] for row in csv.reader(file)}[user]


def client_config(spec: LabSpec, user: str, state: Path = STATE) -> ClientConfig:
    """How a process inside the lab reaches the API server as ``user``."""
    return ClientConfig(
        server=topology.api_url(spec),
        source="lab",
        ca=(state / "pki" / "ca.crt").read_bytes(),
        token=token(user, state),
    )


def kubeconfig_text(server: str, user: str, state: Path = STATE) -> str:
    """A kubeconfig for ``user`` at ``server``."""
    return kubeconfig(server, (state / "pki" / "ca.crt").read_text(), token(user, state))
