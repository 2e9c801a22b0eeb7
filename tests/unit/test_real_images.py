"""The agent's image for a test cluster, when Debian no longer has what is locked."""

from pathlib import Path
from typing import Any

import pytest

from towpath.image import apt, build
from towpath.image.errors import ImageError
from towpath.image.lock import Lock, machine
from towpath.lab.real import images
from towpath.lab.rundir import LabError

NEWEST = Lock(epoch=1, packages={machine(): ()})


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Lock | None]:
    """Locks that images were built from; the one in the tree names a package that is gone."""
    seen: list[Lock | None] = []

    def build_from(*given: Any, locked: Lock | None = None, **_: Any) -> build.Built:
        seen.append(locked)
        if locked is None:
            raise ImageError("libssl3 3.0.1-1 cannot be had", code=apt.GONE)
        archive: Path = given[2] / "image.tar"
        archive.parent.mkdir()
        archive.write_bytes(b"image")
        return build.Built(archive.parent, archive, "sha256:1")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "build", build_from)
    monkeypatch.setattr(build, "latest", lambda *_: NEWEST)
    return seen


def test_a_test_goes_on_with_what_debian_has_and_says_so(builds: list[Lock | None]) -> None:
    said: list[str] = []
    image = images.agent_image(images.AGENT, said.append)
    assert builds == [None, NEWEST]
    assert image.archive.read_bytes() == b"image"
    assert any("libssl3 3.0.1-1 cannot be had" in line and "goes on with" in line for line in said)


def test_whatever_else_fails_is_told(builds: list[Lock | None], monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(*_: Any, **__: Any) -> build.Built:
        raise ImageError("libssl3: another sha256", code="TP8002")

    monkeypatch.setattr(build, "build", changed)
    with pytest.raises(LabError, match="another sha256"):
        images.agent_image(images.AGENT, lambda _: None)
    assert builds == []
