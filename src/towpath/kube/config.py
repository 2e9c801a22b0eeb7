"""Where the API server is and who we are: kubeconfig files and the in-cluster service account."""

import base64
import binascii
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from towpath.kube.errors import KubeConfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ClientConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A server and an identity.

    ``server`` URL; ``ca`` PEM of the authorities to trust, empty for the system's; ``server_name`` what the
    certificate must say where it is not the host; ``certificate`` and ``key`` PEM of a client certificate.
    ``token`` literal, or ``token_file`` re-read whenever the file changes (service account tokens are
    replaced hourly). ``namespace`` the default one. ``source`` says where all this came from, for errors.
    """

    server: str
    source: str
    ca: bytes = b""
    insecure: bool = False
    server_name: str = ""
    certificate: bytes = b""
    key: bytes = b""
    token: str = ""
    token_file: str = ""
    username: str = ""
    password: str = ""
    proxy: str = ""
    namespace: str = "default"

    def tls(self) -> ssl.SSLContext | None:
        """A context for https, None for plain http. Raises KubeConfigError on unusable PEM."""
        if urlsplit(self.server).scheme != "https":
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        "".encode("idna")  # ssl wants this codec later, when its file may be out of our reach
        try:
            if self.insecure:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            elif self.ca:
                context.load_verify_locations(cadata=self.ca.decode())
            else:
                context.load_default_certs()
            if self.certificate:
                _load_pair(context, self.certificate + b"\n" + self.key)
        except (ssl.SSLError, ValueError) as e:
            raise KubeConfigError(
                self.source, f"unusable certificate data: {e}", "certificates and keys must be PEM"
            ) from e
        return context


def load(path: str = "", context: str = "", environ: Mapping[str, str] = os.environ) -> ClientConfig:
    """The configuration kubectl would use: ``path``, else $KUBECONFIG, else in-cluster, else ~/.kube/config.

    Raises KubeConfigError, naming everything that was tried.
    """
    paths = [path] if path else [p for p in environ.get("KUBECONFIG", "").split(":") if p]
    if paths:
        return from_files([Path(p) for p in paths], context)
    if not context and "KUBERNETES_SERVICE_HOST" in environ:
        return in_cluster(environ)
    home = Path(environ.get("HOME", "/"), ".kube/config")
    if home.exists():
        return from_files([home], context)
    raise KubeConfigError(
        "no Kubernetes configuration",
        f"no --kubeconfig, $KUBECONFIG empty, not in a pod, {home} absent",
        "name a kubeconfig with --kubeconfig",
    )


def in_cluster(environ: Mapping[str, str] = os.environ, folder: Path = SERVICE_ACCOUNT) -> ClientConfig:
    """The service account of the pod we run in. Raises KubeConfigError."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise KubeConfigError("environment", "KUBERNETES_SERVICE_HOST is not set", "name a kubeconfig")
    token, ca, namespace = folder / "token", folder / "ca.crt", folder / "namespace"
    if not os.access(token, os.R_OK):
        raise KubeConfigError(
            str(token), "not readable", "mount a service account token readable by this process' uid"
        )
    return ClientConfig(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        source=str(folder),
        ca=ca.read_bytes() if ca.exists() else b"",
        token_file=str(token),
        namespace=namespace.read_text().strip() if namespace.exists() else "default",
    )


def from_files(paths: list[Path], context: str = "") -> ClientConfig:
    """One context of one or more kubeconfig files; as kubectl merges them, the first to name a thing wins.

    Raises KubeConfigError.
    """
    merged: dict[str, Any] = {"clusters": {}, "users": {}, "contexts": {}}
    current = context
    for path in paths:
        document = _document(path)
        current = current or str(document.get("current-context") or "")
        for section, singular in (("clusters", "cluster"), ("users", "user"), ("contexts", "context")):
            for entry in document.get(section) or []:
                if isinstance(entry, dict):
                    body = entry.get(singular) or {}
                    merged[section].setdefault(str(entry.get("name")), (body, path))
    return _resolve(merged, current, ":".join(map(str, paths)))


def _document(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes()
    except OSError as e:
        raise KubeConfigError(str(path), e.strerror or str(e), "check the path and its permissions") from e
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError:
        import yaml  # 25 ms of import that a JSON kubeconfig spares

        try:
            document = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (safe ones)
        except yaml.YAMLError as e:
            raise KubeConfigError(str(path), f"not YAML: {e}", "is this a kubeconfig?") from e
    if not isinstance(document, dict):
        raise KubeConfigError(str(path), "empty or not a mapping", "is this a kubeconfig?")
    return document


def _resolve(merged: dict[str, Any], current: str, source: str) -> ClientConfig:
    def find(section: str, name: str, wanted_by: str) -> tuple[dict[str, Any], Path]:
        if name not in merged[section]:
            known = ", ".join(sorted(merged[section])) or "none"
            raise KubeConfigError(
                source, f"{wanted_by} {name!r} is not among its {section}", f"known: {known}"
            )
        body, path = merged[section][name]
        return body, path

    if not current:
        raise KubeConfigError(source, "no current-context", "choose one with --context")
    context, _ = find("contexts", current, "context")
    cluster, cluster_path = find("clusters", str(context.get("cluster")), f"context {current}: cluster")
    user: dict[str, Any] = {}
    user_path = cluster_path
    if context.get("user"):
        user, user_path = find("users", str(context["user"]), f"context {current}: user")
    for unsupported in ("exec", "auth-provider"):
        if user.get(unsupported):
            raise KubeConfigError(
                source,
                f"user {context['user']!r} logs in through {unsupported!r}, which Towpath does not run",
                "use a kubeconfig with a token or client certificate, e.g. of a service account",
            )
    server = str(cluster.get("server") or "")
    if urlsplit(server).scheme not in ("http", "https") or not urlsplit(server).hostname:
        raise KubeConfigError(source, f"server {server!r} is not a URL", "e.g. https://10.0.0.1:6443")
    token_file = str(user.get("tokenFile") or "")
    return ClientConfig(
        server=server,
        source=source,
        ca=_material(cluster, "certificate-authority", cluster_path),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        server_name=str(cluster.get("tls-server-name") or ""),
        proxy=str(cluster.get("proxy-url") or ""),
        certificate=_material(user, "client-certificate", user_path),
        key=_material(user, "client-key", user_path),
        token=str(user.get("token") or ""),
        token_file=str(user_path.parent / token_file) if token_file else "",
        username=str(user.get("username") or ""),
        password=str(user.get("password") or ""),
        namespace=str(context.get("namespace") or "default"),
    )


def _material(section: Mapping[str, Any], key: str, path: Path) -> bytes:
    """PEM from ``KEY-data`` (base64) or from the file ``KEY`` names, relative to the kubeconfig."""
    if data := section.get(f"{key}-data"):
        try:
            return base64.b64decode(str(data), validate=True)
        except binascii.Error as e:
            raise KubeConfigError(str(path), f"{key}-data is not base64: {e}", "paste it in one line") from e
    if not (name := section.get(key)):
        return b""
    file = path.parent / str(name)
    try:
        return file.read_bytes()
    except OSError as e:
        raise KubeConfigError(str(path), f"{key}: {file}: {e.strerror}", "check the path") from e


def _load_pair(context: ssl.SSLContext, pem: bytes) -> None:
    """``load_cert_chain`` takes only files: hand it one that exists in memory alone."""
    fd = os.memfd_create("towpath-client-certificate", os.MFD_CLOEXEC)
    try:
        os.write(fd, pem)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


class Credentials:
    """The Authorization header of one identity, kept fresh."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._stamp: tuple[int, int, int] | None = None
        self._token = config.token

    def header(self) -> str:
        """Value of the header, empty when the identity needs none.

        The token file is read again whenever it is another one (projected volumes swap a symbolic link).
        An unreadable file leaves the last good token in use; with none, raises KubeConfigError.
        """
        if self._config.token_file:
            self._refresh()
        if self._token:
            return f"Bearer {self._token}"
        if self._config.username:
            pair = f"{self._config.username}:{self._config.password}".encode()
            return "Basic " + base64.b64encode(pair).decode()
        return ""

    def _refresh(self) -> None:
        path = self._config.token_file
        try:
            status = Path(path).stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                if token := Path(path).read_text().strip():
                    self._token = token
                self._stamp = stamp
        except OSError as e:
            if not self._token:
                raise KubeConfigError(path, e.strerror or str(e), "mount a readable token") from e
