"""Images that are damaged or were made to do harm: refused by name, and nothing is written anywhere."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image_cases import config, docker, good, layer, oci
from towpath.image.audit.audit import Terms, audit
from towpath.image.audit.contents import Image, climbs, resolve
from towpath.image.audit.reading import read
from towpath.image.errors import ImageError
from towpath.image.tree import Tree, file, link


def tar_of(*members: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, target, size
    return made


def opened(path: Path, **options: object) -> Image:
    image = read(path, **options)  # type: ignore[arg-type]
    image.spool.close()
    return image


def refused(path: Path, code: str, says: str, **options: object) -> None:
    with pytest.raises(ImageError, match=says or None) as raised:
        opened(path, **options)
    assert raised.value.code == code


def blob(where: Path, number: int) -> Path:
    """The largest (0), second (1)… blob of a layout."""
    return sorted((where / "blobs/sha256").iterdir(), key=lambda p: -p.stat().st_size)[number]


LAYERS: dict[str, tuple[bytes, str, str]] = {
    "..": (tar_of(member("../../etc/cron.d/evil")), "TP8014", r"'\.\./\.\./etc/cron\.d/evil' leaves"),
    ".. within": (tar_of(member("a/../../x")), "TP8014", "leaves the image"),
    "through a link": (
        tar_of(member("out", tarfile.SYMTYPE, "../../../tmp"), member("out/evil")),
        "TP8014",
        "'out/evil' goes through a link that leads out",
    ),
    "through two links": (
        tar_of(member("a", tarfile.SYMTYPE, "b"), member("b", tarfile.SYMTYPE, ".."), member("a/evil")),
        "TP8014",
        "leads out",
    ),
    "loop": (
        tar_of(member("a", tarfile.SYMTYPE, "b"), member("b", tarfile.SYMTYPE, "a"), member("a/x")),
        "TP8014",
        "loop",
    ),
    "hard link out": (tar_of(member("a", tarfile.LNKTYPE, "../../etc/shadow")), "TP8014", "leaves the image"),
    "hard link to nothing": (tar_of(member("a", tarfile.LNKTYPE, "b")), "TP8010", "which is not there"),
    "cut in a file": (tar_of(member("a", size=5000))[:2000], "TP8010", ""),
    "no tar": (b"this is no tar" * 100, "TP8010", ""),
}


def test_the_folder_around_a_layout_is_no_root_file_system(tmp_path: Path) -> None:
    oci(tmp_path / "layout", layer(good()))
    (tmp_path / "digest").write_text("sha256:…")
    refused(tmp_path, "TP8010", "is no image: there is one in it")
    (tmp_path / "etc").mkdir()
    opened(tmp_path)


@pytest.mark.parametrize("name", LAYERS)
def test_layers(tmp_path: Path, name: str) -> None:
    content, code, says = LAYERS[name]
    refused(oci(tmp_path / "i", content), code, says)
    refused(docker(tmp_path, content), code, says)


def test_a_link_that_points_out_is_harmless_until_something_goes_through_it(tmp_path: Path) -> None:
    image = opened(oci(tmp_path / "i", tar_of(member("a/l", tarfile.SYMTYPE, "../../../etc"), member("b"))))
    assert image.resolve("a/l/passwd") == "etc/passwd", "as chroot has it: nothing is above the root"


def test_a_decompression_bomb_is_stopped_at_the_limit(tmp_path: Path) -> None:
    bomb = layer({"big": file(b"\0" * (8 << 20))})
    path = oci(tmp_path / "i", bomb)
    assert blob(path, 0).stat().st_size < 20_000
    refused(path, "TP8015", "larger than 4 MiB", most=4 << 20)


def test_too_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towpath.image.audit.layers._MOST_ENTRIES", 3)
    refused(oci(tmp_path / "i", layer(good())), "TP8015", "more than 3 entries")


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-20] ^= 0xFF
    path.write_bytes(content)


def linked(path: Path, away: Path) -> None:
    path.rename(away)
    path.symlink_to(away)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "layer cut": (lambda where: cut(blob(where, 0)), "TP8010"),
    "layer missing": (lambda where: blob(where, 0).unlink(), "TP8012"),
    "layer is a link": (lambda where: linked(blob(where, 0), where / "x"), "TP8012"),
    "configuration changed": (lambda where: flip(blob(where, 1)), "TP8011"),
    "manifest changed": (lambda where: flip(blob(where, 2)), "TP8011"),
    "manifest missing": (lambda where: blob(where, 2).unlink(), "TP8012"),
    "index is no JSON": (lambda where: cut(where / "index.json"), "TP8010"),
    "index missing": (lambda where: (where / "index.json").unlink(), "TP8012"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damages(tmp_path: Path, name: str) -> None:
    damage, code = DAMAGES[name]
    path = oci(tmp_path / "i", layer(good()))
    opened(path)
    damage(path)
    refused(path, code, "")


def test_a_layer_changed_to_another_valid_one(tmp_path: Path) -> None:
    path = oci(tmp_path / "i", layer(good()))
    blob(path, 0).write_bytes(gzip.compress(layer({"usr/bin/evil": file("x")}), mtime=0))
    refused(path, "TP8011", "sha256:[0-9a-f]{64}, uncompressed is")


def index(path: Path, change: Callable[[dict[str, list[dict[str, object]]]], None]) -> Path:
    found = json.loads((path / "index.json").read_text())
    change(found)
    (path / "index.json").write_text(json.dumps(found))
    return path


def test_unknown_media_types(tmp_path: Path) -> None:
    path = oci(tmp_path / "i", layer(good()), beside="")
    index(path, lambda i: i["manifests"][0].update(mediaType="application/vnd.cncf.helm.chart"))
    refused(path, "TP8013", r"application/vnd\.cncf\.helm\.chart")


def put(path: Path, document: object) -> dict[str, object]:
    """A blob of this content, and what its descriptor says of it."""
    content = json.dumps(document).encode()
    digest = hashlib.sha256(content).hexdigest()
    (path / "blobs/sha256" / digest).write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def test_unknown_media_types_of_layers(tmp_path: Path) -> None:
    path = oci(tmp_path / "i", layer(good()), beside="")

    def foreign(found: dict[str, list[dict[str, object]]]) -> None:
        first = found["manifests"][0]
        manifest = json.loads((path / "blobs" / str(first["digest"]).replace(":", "/")).read_text())
        manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.squashfs"
        first.update(put(path, manifest))

    index(path, foreign)
    refused(path, "TP8013", r"application/vnd\.oci\.image\.layer\.v1\.squashfs")


LISTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)


@pytest.mark.parametrize("kind", LISTS)
def test_manifest_lists_within_the_index(tmp_path: Path, kind: str) -> None:
    path = oci(tmp_path / "i", layer(good()), beside="")

    def deeper(found: dict[str, list[dict[str, object]]]) -> None:
        found["manifests"] = [{"mediaType": kind, **put(path, found)}]

    index(path, deeper)
    assert opened(path).files
    for _ in range(4):
        index(path, deeper)
    refused(path, "TP8010", "indexes in indexes without end")


def test_digests_that_are_paths(tmp_path: Path) -> None:
    path = oci(tmp_path / "i", layer(good()), beside="")
    index(path, lambda i: i["manifests"][0].update(digest="sha256:../../../../etc/passwd"))
    refused(path, "TP8013", "is no sha256 digest")


def test_several_platforms_are_listed_and_one_is_chosen(tmp_path: Path) -> None:
    path = oci(tmp_path / "i", layer(good()), beside="")

    def two(found: dict[str, list[dict[str, object]]]) -> None:
        first = found["manifests"][0]
        arm = {**first, "digest": "sha256:" + "0" * 64, "platform": {"os": "linux", "architecture": "arm64"}}
        found["manifests"] = [{**first, "platform": {"os": "linux", "architecture": "amd64"}}, arm]

    index(path, two)
    refused(path, "TP8016", r"2 images \(linux/amd64, linux/arm64\)")
    refused(path, "TP8016", "0 images for linux/s390x", platform="linux/s390x")
    assert opened(path, platform="linux/amd64").files
    refused(path, "TP8012", "", platform="linux/arm64")


def test_no_image_at_all(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "TP8001", "is not there")
    (tmp_path / "x.tar").write_bytes(b"nothing")
    refused(tmp_path / "x.tar", "TP8010", "truncated or no tar")
    (tmp_path / "y.tar").write_bytes(layer({"a": file("x")}))
    refused(tmp_path / "y.tar", "TP8010", "neither oci-layout nor manifest")


def test_archives_cut_anywhere_are_refused(tmp_path: Path) -> None:
    whole = docker(tmp_path, layer(good())).read_bytes().rstrip(b"\0")
    for part in range(1, 13):
        (tmp_path / "cut.tar").write_bytes(whole[: len(whole) * part // 13])
        with pytest.raises(ImageError):
            opened(tmp_path / "cut.tar")


def test_a_docker_archive_whose_layer_is_a_path_out(tmp_path: Path) -> None:
    archive = docker(tmp_path, layer(good()))
    manifest = json.dumps([{"Config": "../../etc/passwd", "Layers": []}]).encode()
    with tarfile.open(archive, "w") as tar:
        made = member("manifest.json")
        made.size = len(manifest)
        tar.addfile(made, io.BytesIO(manifest))
    refused(archive, "TP8014", "leaves the image")


def test_nothing_is_written_beside_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = oci(tmp_path / "i", layer({**good(), "run-me": file("#!/bin/sh\ntouch /run\n", 0o755)}))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    before = {str(p): p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    image = read(path)
    assert not list(scratch.iterdir()), "the spool has no name"
    image.spool.close()
    assert {str(p): p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p != scratch} == {
        p: t for p, t in before.items() if p != str(scratch)
    }


NAMES = st.lists(
    st.sampled_from(["a", "b", "..", ".", "/", "a/b", "../x", ".wh.a", ".wh..wh..opq", ""]), max_size=3
)


KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(NAMES, KINDS, NAMES), max_size=8))
def test_any_layer_is_read_or_refused_and_every_path_stays_inside(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[list[str], bytes, list[str]]]
) -> None:
    made = [member("/".join(name) or "x", kind, "/".join(target)) for name, kind, target in members]
    path = oci(tmp_path_factory.mktemp("any") / "i", tar_of(*made), image=config())
    try:
        image = read(path)
    except ImageError:
        return
    for name in image.files:
        assert ".." not in name.split("/") and not name.startswith("/")
        assert not climbs(image.files, name)
        assert not resolve(image.files, name, parents_only=True).startswith("..")
    image.spool.close()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_never_taken_for_the_image(position: int, flipped: int) -> None:
    import tempfile

    tree: Tree = {"a": file("hello"), "l": link("a")}
    with tempfile.TemporaryDirectory() as folder:
        path = oci(Path(folder) / "i", layer(tree), beside="")
        target = blob(path, position % 3)
        content = bytearray(target.read_bytes())
        content[position % len(content)] ^= flipped
        target.write_bytes(content)
        with pytest.raises(ImageError):
            opened(path)


def test_a_feed_that_is_none(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    (tmp_path / "feed.json").write_text('{"hello": "world"}')
    image = read(oci(tmp_path / "i", layer(good())))
    with pytest.raises(ImageError, match="neither Debian's security tracker nor OSV"):
        audit(image, Terms(now=datetime(2026, 10, 1, tzinfo=UTC), feed=tmp_path / "feed.json"))
    image.spool.close()
