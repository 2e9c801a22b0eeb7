"""What one image has otherwise than another: what a version bump changed."""

from collections.abc import Iterator
from typing import Any

import msgspec

from towpath.image.audit.audit import Report
from towpath.image.audit.contents import File, Image

_CONFIG = (
    "User",
    "Env",
    "Entrypoint",
    "Cmd",
    "Labels",
    "ExposedPorts",
    "Volumes",
    "WorkingDir",
    "Healthcheck",
)


class Change(msgspec.Struct, frozen=True, order=True):
    """``kind``: config, package, file, finding, size; ``what`` names it; ``old`` or ``new`` may be empty."""

    kind: str
    what: str
    old: str
    new: str

    @property
    def sign(self) -> str:
        """``+`` came, ``-`` went, ``~`` changed."""
        return "~" if self.old and self.new else "+" if self.new else "-"


def compare_images(old: Image, new: Image, old_report: Report, new_report: Report) -> list[Change]:
    """All changes: configuration first, then packages, findings, sizes and files."""
    return [
        *_config(old.config or {}, new.config or {}),
        *_packages(old_report, new_report),
        *_findings(old_report, new_report),
        *_sizes(old_report, new_report),
        *_files(old.files, new.files),
    ]


def _config(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    before, after = old.get("config") or {}, new.get("config") or {}
    for key in ("architecture", "os"):
        if old.get(key) != new.get(key):
            yield Change("config", key, _text(old.get(key)), _text(new.get(key)))
    for key in _CONFIG:
        one, other = before.get(key), after.get(key)
        if isinstance(one or other, dict):
            one, other = one or {}, other or {}
            for name in sorted({*one, *other}):
                if one.get(name) != other.get(name):
                    yield Change("config", f"{key} {name}", _text(one.get(name)), _text(other.get(name)))
        elif (one or None) != (other or None):
            yield Change("config", key, _text(one), _text(other))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def _packages(old: Report, new: Report) -> Iterator[Change]:
    before = {(p.kind, p.name): p.version for p in old.packages}
    after = {(p.kind, p.name): p.version for p in new.packages}
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key):
            yield Change("package", " ".join(key), before.get(key, ""), after.get(key, ""))


def _findings(old: Report, new: Report) -> Iterator[Change]:
    before = {(f.code, f.path): f.message for f in old.findings}
    after = {(f.code, f.path): f.message for f in new.findings}
    for key in sorted({*before, *after}):
        if (key in before) != (key in after):
            yield Change("finding", " ".join(key), before.get(key, ""), after.get(key, ""))


def _sizes(old: Report, new: Report) -> Iterator[Change]:
    for what in ("compressed", "unpacked", "files", "layers"):
        one, other = getattr(old, what), getattr(new, what)
        if one != other:
            yield Change("size", what, str(one), str(other))


def _files(old: dict[str, File], new: dict[str, File]) -> Iterator[Change]:
    for path in sorted({*old, *new}):
        one, other = old.get(path), new.get(path)
        if one and other and _look(one) == _look(other):
            continue
        yield Change("file", path, _describe(one), _describe(other))


def _look(file: File) -> tuple[object, ...]:
    return (file.kind, file.mode, file.uid, file.gid, file.sha256, file.target, file.capability)


def _describe(file: File | None) -> str:
    if file is None:
        return ""
    rest = f" -> {file.target}" if file.kind == "link" else f" {file.sha256[:12]}" if file.sha256 else ""
    extra = " with capabilities" if file.capability else ""
    return f"{file.kind} {file.mode:04o} {file.uid}:{file.gid}{rest}{extra}"
