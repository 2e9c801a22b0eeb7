"""The file: a gzipped tar with a README that says what is in it, what was removed and what is missing."""

import gzip
import io
import tarfile
from collections.abc import Mapping
from datetime import datetime

from towpath.sysdump.collect import LOG_LINES, Dump

FOLDER = "towpath-sysdump"


def readme(dump: Dump, version: str, taken: datetime) -> str:
    """For whoever opens the archive, and for whoever has to decide whether it may be sent."""
    missing = [f"- {why}" for why in dump.left_out] or ["- nothing"]
    return "\n".join(
        [
            f"Taken by towpath {version} at {taken:%Y-%m-%dT%H:%M:%SZ}.",
            "",
            "inventory.json  nodes (with what was read on them), components, charts, counts of objects",
            "objects/        policies, networks, charts, settings, addresses, namespaces, nodes, pods",
            f"pods/           the network's own pods, and the last {LOG_LINES} lines of their logs",
            "events/         Events of their namespaces",
            "",
            "Kubernetes Secrets were not read. Private keys, tokens, passwords and what looks like one were",
            "replaced by [removed], values of environment variables left out. Names and addresses of pods,",
            "nodes and namespaces are in it: look through it before you send it to somebody.",
            "",
            "Missing:",
            *missing,
            "",
        ]
    )


def pack(files: Mapping[str, str], taken: datetime) -> bytes:
    """As a file; names are sorted, times are those of ``taken``."""
    when = int(taken.timestamp())
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, text in sorted(files.items()):
            data = text.encode()
            info = tarfile.TarInfo(f"{FOLDER}/{path}")
            info.size, info.mtime, info.mode = len(data), when, 0o600
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(out.getvalue(), mtime=when)
