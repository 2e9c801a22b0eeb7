"""Names of images, as manifests, container runtimes and nodes write them."""

from typing import Self

import msgspec


class Image(msgspec.Struct, frozen=True, order=True):
    """``registry/path/name:tag@digest``; parts that are not there are empty.

    ``name`` is the last part of the path, which is the same whatever registry the image was mirrored to.
    """

    repository: str
    name: str
    tag: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Any text is a name (the runtime may also give the bare digest of one without)."""
        if text.startswith("sha256:"):
            return cls("", "", "", text)
        rest, _, digest = text.partition("@")
        last = rest.rfind("/") + 1
        colon = rest.find(":", last)
        repository, tag = (rest, "") if colon < 0 else (rest[:colon], rest[colon + 1 :])
        return cls(repository, repository[last:], tag, digest)

    def __str__(self) -> str:
        """For people: without the registry; a digest stands only where there is no tag."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest[:19]}" if self.digest and not self.tag else ""
        return f"{self.name}{tag}{digest}"
