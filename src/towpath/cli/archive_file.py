"""Files that a command leaves behind whole, or not at all."""

import contextlib
import os
from pathlib import Path

from towpath.cli.exit import CliError


def refuse_unwritable(file: Path, *, force: bool) -> None:
    """Before a cluster is asked for minutes: raises CliError for what could not be written at its end."""
    if file.exists() and not force:
        raise CliError(f"{file} is there already; name another file, or use --force")
    if not file.parent.is_dir():
        raise CliError(f"{file} cannot be written: there is no folder {file.parent}")


def write_whole(file: Path, data: bytes) -> None:
    """Whole or not at all, and for its owner's eyes: configurations may hold secrets. Raises CliError."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    except OSError as e:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CliError(f"{file} cannot be written: {e.strerror}") from e
