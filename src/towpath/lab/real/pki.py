"""Certificates of a real cluster: one authority for servers and clients, one for the aggregation layer.

All in one folder: ca.crt, ca.key, front-ca.crt, service-accounts.key; NAME.crt and NAME.key an identity.
"""

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import trustme

MASTERS, NODES = "system:masters", "system:nodes"

# Go refuses a certificate whose list of names is there (trustme writes it always) and empty.
_CLIENT_NAME = "client.towpath.lab"


class Identity(NamedTuple):
    """Paths of a certificate and its private key, both PEM."""

    certificate: Path
    key: Path


class Pki:
    """The folder's certificates; what is there already stays valid."""

    def __init__(self, folder: Path) -> None:
        """Make the authorities where they are missing. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self.ca = folder / "ca.crt"
        self._authority = _authority(self.ca, folder / "ca.key", "towpath lab")

    def issue(self, name: str, user: str, group: str = "", hosts: Iterable[str] = ()) -> Identity:
        """A certificate for Kubernetes user ``user`` in ``group``, or of a server at ``hosts``.

        It is kept in NAME.crt and NAME.key. Raises OSError.
        """
        return _issue(self._authority, self._identity(name), user, group, hosts)

    def front_proxy(self) -> tuple[Path, Identity]:
        """The authority of the aggregation layer and the API server's identity in it. Raises OSError."""
        ca = self.folder / "front-ca.crt"
        authority = _authority(ca, self.folder / "front-ca.key", "towpath lab front proxy")
        identity = _issue(authority, self._identity("front-proxy"), "front-proxy-client", "", ())
        return ca, identity

    def service_account_key(self) -> Path:
        """The key that signs service account tokens; verifiers take the same file. Raises OSError."""
        return self.issue("service-accounts", "service-accounts").key

    def kubeconfig(self, server: str, name: str, user: str, group: str = "") -> str:
        """A kubeconfig with a client certificate inside: JSON, which is YAML. Raises OSError."""
        identity = self.issue(name, user, group)
        data = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "towpath",
                    "cluster": {"server": server, "certificate-authority-data": _base64(self.ca)},
                }
            ],
            "users": [
                {
                    "name": name,
                    "user": {
                        "client-certificate-data": _base64(identity.certificate),
                        "client-key-data": _base64(identity.key),
                    },
                }
            ],
            "contexts": [{"name": "towpath", "context": {"cluster": "towpath", "user": name}}],
            "current-context": "towpath",
        }
        return json.dumps(data, indent=2) + "\n"

    def _identity(self, name: str) -> Identity:
        return Identity(self.folder / f"{name}.crt", self.folder / f"{name}.key")


def _issue(
    authority: trustme.CA, identity: Identity, user: str, group: str, hosts: Iterable[str]
) -> Identity:
    if identity.certificate.exists():
        return identity
    names = tuple(dict.fromkeys(hosts)) or (_CLIENT_NAME,)
    leaf = authority.issue_cert(*names, common_name=user, organization_name=group or None)
    _write(identity.key, leaf.private_key_pem.bytes())
    _write(identity.certificate, b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    return identity


def _authority(certificate: Path, key: Path, name: str) -> trustme.CA:
    if certificate.exists():
        return trustme.CA.from_pem(certificate.read_bytes(), key.read_bytes())
    authority = trustme.CA(organization_name=name)
    _write(key, authority.private_key_pem.bytes())
    _write(certificate, authority.cert_pem.bytes())
    return authority


def _write(path: Path, data: bytes) -> None:
    """Complete or not at all, and only for the owner's eyes."""
    partial = path.with_name(f".{path.name}")
    partial.touch(mode=0o600)
    partial.write_bytes(data)
    partial.replace(path)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
