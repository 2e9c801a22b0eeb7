"""The catalogue that Towpath comes with, or one from a file."""

import tomllib
from importlib.resources import files
from pathlib import Path

import msgspec

from towpath.catalogue.model import Catalogue, CatalogueError, Known

_PACKAGE = "towpath.catalogue"


def builtin() -> Catalogue:
    """What this version of Towpath knows. Raises CatalogueError when it was damaged."""
    here = files(_PACKAGE)
    known = (here / "known.toml").read_text()
    return _catalogue((here / "releases.json").read_bytes(), known, "Towpath's own catalogue")


def from_file(path: Path) -> Catalogue:
    """As ``scripts/make-catalogue`` writes it; what it says of stories and logs comes before ours.

    Raises CatalogueError naming the file and the field.
    """
    try:
        text = path.read_bytes()
    except OSError as e:
        raise CatalogueError(f"{path}: {e.strerror}") from e
    known = "" if b'"known"' in text else (files(_PACKAGE) / "known.toml").read_text()
    return _catalogue(text, known, str(path))


def _catalogue(text: bytes, known: str, source: str) -> Catalogue:
    try:
        found = msgspec.json.decode(text, type=Catalogue)
        if known:
            told = msgspec.convert(tomllib.loads(known), type=Known)
            found = msgspec.structs.replace(found, known=told)
    except (msgspec.DecodeError, tomllib.TOMLDecodeError) as e:
        raise CatalogueError(f"{source} is not a catalogue: {e}") from e
    found.check()
    return found
