"""The lab's certificate authority and the server's certificate, made once."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

NAMES = (
    "127.0.0.1", "::1", "localhost", "172.30.0.1", "fd00:172:30::1", "10.43.0.1", "fd00:10:43::1",
    "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
)  # fmt: skip


class Pki(NamedTuple):
    """Paths of PEM files."""

    ca: Path
    certificate: Path
    key: Path


def ensure_pki(folder: Path, more: Iterable[str] = ()) -> Pki:
    """Make what is missing; ``more`` are further names or addresses. Raises OSError."""
    pki = Pki(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    if all(p.exists() for p in pki):
        return pki
    import trustme

    folder.mkdir(parents=True, exist_ok=True)
    ca = trustme.CA(organization_name="towpath lab")
    issued = ca.issue_cert(*dict.fromkeys([*NAMES, *more]))
    ca.cert_pem.write_to_path(str(pki.ca))
    pki.key.touch(mode=0o600)
    issued.private_key_pem.write_to_path(str(pki.key))
    for i, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(str(pki.certificate), append=i > 0)
    return pki
