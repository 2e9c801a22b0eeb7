"""The image's configuration: user, base, history, labels, age. Nothing to say of a bare root file system."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from towpath.image.audit.contents import Image
from towpath.image.audit.rules import Found
from towpath.image.audit.secrets import secrets_in

_PREFIX = "org.opencontainers.image"
_WANTED = ("title", "version", "revision", "licenses")
_REMOTE_ADD = re.compile(r"\bADD\b.*\bhttps?://", re.IGNORECASE)
_UPDATE = re.compile(r"\b(apt-get|apt|apk|zypper|dnf|yum|microdnf)\b[^&;|]*\b(update|upgrade|refresh)\b")
_INSTALL = re.compile(r"\b(install|add|in)\b")
_DIST_UPGRADE = re.compile(
    r"\b(dist-upgrade|full-upgrade|zypper\s+(-\S+\s+)*(update|up)|apt(-get)?\s+(-\S+\s+)*upgrade)\b"
)
_PLAIN_DOWNLOAD = re.compile(r"\b(curl|wget)\b.*\bhttp://")
_UNVERIFIED = re.compile(
    r"--allow-unauthenticated|--no-gpg-checks?\b|--nogpgcheck|--allow-untrusted|--trusted-host"
    r"|AllowUnauthenticated\s*=?\s*[\"']?(true|yes|1)|\[[^]]*trusted=yes|\bcurl\b.*\s(-k\b|--insecure\b)"
    r"|--no-check-certificate"
)


def check_config(image: Image, now: datetime, max_age: timedelta) -> Iterator[Found]:
    """``max_age``: how old an image may be before its patches are in doubt."""
    if image.config is None:
        return
    inner = image.config.get("config") or {}
    labels = inner.get("Labels") or {}
    yield from _user(str(inner.get("User") or ""))
    yield from _origin(image, labels)
    if not inner.get("Healthcheck") and not labels.get("dev.towpath.health"):
        yield Found(code="TP8104", path="config.Healthcheck", message="there is none")
    yield from _history(image.config.get("history") or ())
    for place, text in _texts(inner, labels, image.config.get("history") or ()):
        for kind in secrets_in(text):
            yield Found(code="TP8106", path=place, message=f"looks like {kind}")
    for name in _WANTED:
        if not labels.get(f"{_PREFIX}.{name}"):
            yield Found(code="TP8107", path=f"{_PREFIX}.{name}", message="is missing")
    yield from _age(image.config, now, max_age)


def _user(user: str) -> Iterator[Found]:
    name = user.partition(":")[0]
    if name in ("", "root") or (name.isdigit() and int(name) == 0):
        yield Found(code="TP8101", path="config.User", message=f"is {user!r}: the container runs as root")
    elif not name.isdigit():
        yield Found(
            code="TP8102",
            path="config.User",
            message=f"is {user!r}, no number: runAsNonRoot cannot be verified by a kubelet",
        )


def _origin(image: Image, labels: dict[str, str]) -> Iterator[Found]:
    for name in image.names:
        if name.rpartition("/")[2].rpartition(":")[2] == "latest":
            yield Found(code="TP8111", path=name, message="is another image every time")
    base = labels.get(f"{_PREFIX}.base.name", "")
    if base != "scratch" and not labels.get(f"{_PREFIX}.base.digest"):
        yield Found(
            code="TP8103",
            path=f"{_PREFIX}.base.digest",
            message=f"base image {base or 'unknown'} without digest",
        )
    if not image.attestations:
        yield Found(code="TP8109", path="index.json", message="no provenance lies beside the image")
    if not image.signatures:
        yield Found(code="TP8110", path="index.json", message="no signature lies beside the image")


def _history(history: Any) -> Iterator[Found]:
    for number, step in enumerate(history):
        text = str(step.get("created_by") or "") if isinstance(step, dict) else ""
        path, short = f"history[{number}]", text if len(text) <= 120 else text[:117] + "..."
        if _REMOTE_ADD.search(text) and "--checksum" not in text:
            yield Found(code="TP8105", path=path, message=f"ADD from the network, without a hash: {short}")
        elif _PLAIN_DOWNLOAD.search(text):
            yield Found(code="TP8105", path=path, message=f"a download without encryption: {short}")
        elif _UNVERIFIED.search(text):
            yield Found(code="TP8105", path=path, message=f"takes what nobody signed for: {short}")
        elif _DIST_UPGRADE.search(text):
            yield Found(code="TP8105", path=path, message=f"upgrades to whatever is newest that day: {short}")
        elif _UPDATE.search(text) and not _INSTALL.search(text):
            yield Found(code="TP8105", path=path, message=f"updates lists without installing: {short}")


def _texts(inner: dict[str, Any], labels: dict[str, str], history: Any) -> Iterator[tuple[str, str]]:
    for line in inner.get("Env") or ():
        yield f"config.Env {line.partition('=')[0]}", str(line)
    for key, value in labels.items():
        yield f"label {key}", f"{key}={value}"
    for number, step in enumerate(history):
        if isinstance(step, dict):
            yield f"history[{number}]", str(step.get("created_by") or "")


def _age(config: dict[str, Any], now: datetime, max_age: timedelta) -> Iterator[Found]:
    text = str(config.get("created") or "")
    try:
        created = datetime.fromisoformat(text)
    except ValueError:
        yield Found(code="TP8108", path="created", message=f"is {text!r}: its age is unknown")
        return
    if created.tzinfo is None:
        created = created.replace(tzinfo=UTC)
    if now - created > max_age:
        days = (now - created).days
        yield Found(code="TP8108", path="created", message=f"is {text}, {days} days ago")
