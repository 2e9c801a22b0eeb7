"""``towpath image``: what an image holds that it should not, lacks that it should have, or changed."""

import contextlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import msgspec
import yaml

from towpath.cli.exit import FINDING, USAGE, CliError
from towpath.cli.output import emit, formats_option, mark, table
from towpath.image.errors import ImageError

_SEVERITIES = ("critical", "high", "medium", "low", "info")
_MARKS = {"critical": "error", "high": "error", "medium": "warning"}
_EXTRA = "the audit needs Towpath's extra: pip install 'towpath[image]'"

_path = click.Path(exists=True, path_type=Path)
_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_platform = click.option(
    "--platform", default="", metavar="OS/ARCH", help="Which of several images, linux/arm64."
)
_most = click.option(
    "--max-unpacked", default=8192, show_default=True, metavar="MIB", help="Refuse what unpacks to more."
)


@click.group()
def command() -> None:
    """Judge container images by their files alone: no daemon, and nothing of them is run."""


@command.command("audit")
@click.argument("image", type=_path, required=False)
@click.option(
    "--manifest", type=_file, multiple=True, help="YAML of the pods that run it (may be given alone)."
)
@click.option(
    "--feed", type=_file, help="Vulnerabilities: Debian's security tracker as JSON, or OSV (JSON, zip)."
)
@click.option("--vex", type=_file, multiple=True, help="OpenVEX or CycloneDX: what does not count, and why.")
@click.option("--fail-on", type=click.Choice(_SEVERITIES), default="high", show_default=True,
              help="Exit code 3 from this severity on.")  # fmt: skip
@click.option("--max-age", default=90, show_default=True, metavar="DAYS", help="Older images are reported.")
@click.option("--max-mb", default=70.0, show_default=True, help="Budget, compressed.")
@click.option("--max-files", default=10_000, show_default=True, help="Budget of entries.")
@_platform
@_most
@formats_option("table", "wide", "json", "yaml", "sarif", "html")
@click.pass_context
def audit_command(
    ctx: click.Context,
    image: Path | None,
    manifest: tuple[Path, ...],
    feed: Path | None,
    vex: tuple[Path, ...],
    fail_on: str,
    max_age: int,
    max_mb: float,
    max_files: int,
    platform: str,
    max_unpacked: int,
    output: str,
) -> None:
    """Check IMAGE (OCI layout, docker-archive or OCI archive, or a folder with a root file system).

    Everything in it is untrusted: links and paths that lead out, bombs and wrong digests are refused by name.
    """
    if image is None and not manifest:
        raise CliError("name an image, or pods with --manifest", USAGE)
    if vex and feed is None:
        raise CliError("--vex speaks of vulnerabilities: give --feed as well", USAGE)
    try:
        from towpath.image.audit.audit import Report, Terms, audit, ordered
        from towpath.image.audit.file_checks import Budget
        from towpath.image.audit.pods import check_manifest
        from towpath.image.audit.reading import read
    except ModuleNotFoundError as missing:
        raise CliError(f"{missing.name} is not installed; {_EXTRA}") from missing
    budget = Budget(compressed=int(max_mb * 1e6), files=max_files)
    terms = Terms(now=datetime.now(UTC), max_age=timedelta(days=max_age), budget=budget, feed=feed, vex=vex)
    report = Report(source=", ".join(map(str, manifest)), digest="", user="", layers=0, files=0, unpacked=0,
                    compressed=0, packages=(), findings=())  # fmt: skip
    try:
        if image is not None:
            read_image = read(image, platform=platform, most=max_unpacked << 20)
            try:
                report = audit(read_image, terms)
            finally:
                read_image.spool.close()
    except ImageError as refused:
        raise CliError(f"{refused.code} {refused}") from refused
    objects = [thing for path in manifest for thing in _objects(path)]
    findings = ordered([*report.findings, *check_manifest(objects, report.digest)])
    report = msgspec.structs.replace(report, findings=findings)
    _print(report, output, bool(image))
    if any(_SEVERITIES.index(f.weight) <= _SEVERITIES.index(fail_on) for f in report.findings):
        ctx.exit(FINDING)


def _objects(path: Path) -> list[Any]:
    try:
        return [thing for thing in yaml.safe_load_all(path.read_bytes()) if thing]
    except (yaml.YAMLError, OSError) as wrong:
        raise CliError(f"{path}: {' '.join(str(wrong).split())}", USAGE) from wrong


def _print(report: Any, output: str, with_image: bool) -> None:
    if output == "sarif":
        from towpath.image.audit.sarif import sarif

        click.echo(json.dumps(sarif(report.findings, report.source), indent=2))
    elif output == "html":
        from towpath.image.audit.page import page

        click.echo(page(report), nl=False)
    else:
        emit(report.as_dict(), output, lambda: _as_table(report, output == "wide", with_image))


def _as_table(report: Any, wide: bool, with_image: bool) -> str:
    lines = []
    if with_image:
        lines += [
            f"{report.source} {report.digest}".rstrip(),
            f"user {report.user or 'root'}, {len(report.packages)} packages, {report.files} entries in "
            f"{report.layers} layers, {report.compressed / 1e6:.1f} MB compressed, "
            f"{report.unpacked / 1e6:.1f} MB unpacked",
            "",
        ]
    if not report.findings:
        return "\n".join([*lines, mark("nothing found", "ok")])
    from towpath.image.audit.rules import RULES
    from towpath.model.codes import CODES

    heads = ["SEVERITY", "CODE", "WHERE", "WHAT"] + (["STANDARD", "FIX"] if wide else [])
    rows = [
        [
            mark(f.weight, _MARKS.get(f.weight, "ok")) if f.weight in _MARKS else f.weight,
            f.code,
            f.path,
            f.message,
            *([", ".join(RULES[f.code].standards), CODES[f.code].fix] if wide else []),
        ]
        for f in report.findings
    ]
    counts = [f"{n} {s}" for s in _SEVERITIES if (n := sum(f.weight == s for f in report.findings))]
    return "\n".join([*lines, table(heads, rows), "", ", ".join(counts)])


@command.command("diff")
@click.argument("old", type=_path)
@click.argument("new", type=_path)
@click.option("--files/--no-files", default=True, help="List changed files too.")
@_platform
@_most
@formats_option("table", "json", "yaml")
@click.pass_context
def diff_command(
    ctx: click.Context, old: Path, new: Path, files: bool, platform: str, max_unpacked: int, output: str
) -> None:
    """What NEW has otherwise than OLD: configuration, packages, findings, sizes, files. Exit code 3: any."""
    try:
        from towpath.image.audit.audit import Terms, audit
        from towpath.image.audit.comparing import compare_images
        from towpath.image.audit.reading import read
    except ModuleNotFoundError as missing:
        raise CliError(f"{missing.name} is not installed; {_EXTRA}") from missing
    terms = Terms(now=datetime.now(UTC))
    try:
        with contextlib.ExitStack() as stack:
            one, other = (read(path, platform=platform, most=max_unpacked << 20) for path in (old, new))
            for each in (one, other):
                stack.callback(each.spool.close)
            changes = compare_images(one, other, audit(one, terms), audit(other, terms))
    except ImageError as refused:
        raise CliError(f"{refused.code} {refused}") from refused
    shown = [c for c in changes if files or c.kind != "file"]
    rows = [{"sign": c.sign, **msgspec.to_builtins(c)} for c in shown]
    emit(
        rows,
        output,
        lambda: (
            table(["", "KIND", "WHAT", "OLD", "NEW"], [[c.sign, c.kind, c.what, c.old, c.new] for c in shown])
            if shown
            else "no difference"
        ),
    )
    if changes:
        ctx.exit(FINDING)
