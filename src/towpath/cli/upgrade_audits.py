"""``--audit`` of ``towpath upgrade plan``: what is known of the images to come."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from towpath.cli.exit import PRECONDITION, USAGE, CliError
from towpath.cli.output import mark
from towpath.image.errors import ImageError
from towpath.upgrade import audits
from towpath.upgrade.audits import ImageAudit
from towpath.upgrade.plan import Plan

F = TypeVar("F", bound=Callable[..., Any])
_JSON = (b"{", b"[")


def audit_option(command: F) -> F:
    """``--audit``, given to the command as ``audit: tuple[ImageAudit, ...]``."""
    return click.option(
        "--audit",
        multiple=True,
        metavar="IMAGE|JSON",
        type=click.Path(exists=True, path_type=Path),
        callback=lambda _ctx, _param, given: tuple(map(audited, given)),
        help="An image to come, or what `towpath image audit` or `diff` said of it with -o json.",
    )(command)


def audited(path: Path) -> ImageAudit:
    """An image is audited now, by the defaults. Raises CliError."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                if file.read(1) in _JSON:
                    return audits.read(path.read_bytes(), str(path))
    except OSError as e:
        raise CliError(f"--audit {path} cannot be read: {e.strerror}", USAGE) from e
    except audits.AuditError as e:
        raise CliError(f"--audit: {e}", USAGE) from e
    return _looked_at(path)


def _looked_at(path: Path) -> ImageAudit:
    try:
        from towpath.image.audit.audit import Terms, audit
        from towpath.image.audit.reading import read
    except ModuleNotFoundError as missing:
        told = f"{missing.name} is not installed; the audit needs it: pip install 'towpath[image]'"
        raise CliError(told, PRECONDITION) from missing
    try:
        image = read(path)
        try:
            report = audit(image, Terms(now=datetime.now(UTC)))
        finally:
            image.spool.close()
    except ImageError as refused:
        raise CliError(f"{refused.code} {refused}") from refused
    findings = (audits.AuditFinding(f.weight, f.code, f.path, f.message) for f in report.findings)
    return audits.of(report.source, report.digest, findings)


def audits_told(made: Plan) -> list[str]:
    """Lines for a person."""
    return [
        mark(f"{_kind(one)} {one.source}: {one.summary(made.digests)}", "warning" if one.grave else "ok")
        for one in made.audits
    ]


def _kind(one: ImageAudit) -> str:
    return "comparison" if one.compared else "audit of"
