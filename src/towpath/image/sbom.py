"""CycloneDX bills of materials: what an image of ours is made of, the same bytes for the same inputs."""

import hashlib
import uuid
from datetime import UTC, datetime
from email.parser import BytesHeaderParser

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from towpath.image.apt import records
from towpath.image.lock import Package
from towpath.image.tree import Entry, Tree

PATH = "usr/share/sbom/towpath-agent.cdx.json"


def bill(
    name: str, version: str, tree: Tree, own: Tree, packages: tuple[Package, ...], epoch: int, suite: str
) -> str:
    """The SBOM of ``tree`` as JSON (CycloneDX 1.6): Debian packages by the lock, Python ones by metadata.

    ``own`` are the files that no package has, listed by path and hash.
    """
    licences = {r["Package"]: r for r in records(tree["var/lib/dpkg/status"].content.decode())}
    components = [_debian(p, licences[p.name]["Architecture"], suite) for p in packages]
    components += [
        _python(entry.content) for path, entry in tree.items() if path.endswith(".dist-info/METADATA")
    ]
    components += [_file(path, entry) for path, entry in sorted(own.items()) if entry.kind != "folder"]
    main = Component(name=name, version=version, type=ComponentType.CONTAINER, bom_ref=f"{name}@{version}")
    bom = Bom(components=components, serial_number=uuid.UUID(int=0))
    bom.metadata.component = main
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    bom.register_dependency(main, components)
    body = JsonV1Dot6(bom).output_as_string()
    # The serial number stands for the content (CycloneDX: a new one for each changed document).
    bom.serial_number = uuid.UUID(bytes=hashlib.sha256(body.encode()).digest()[:16], version=5)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def _debian(package: Package, architecture: str, suite: str) -> Component:
    qualifiers = {"arch": architecture, "distro": suite}
    purl = PackageURL("deb", "debian", package.name, package.version, qualifiers)
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        purl=purl,
        bom_ref=str(purl),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=package.sha256)],
    )


def _python(metadata: bytes) -> Component:
    fields = BytesHeaderParser().parsebytes(metadata)
    purl = PackageURL("pypi", None, str(fields["Name"]).lower().replace("_", "-"), str(fields["Version"]))
    return Component(
        name=str(fields["Name"]),
        version=str(fields["Version"]),
        type=ComponentType.LIBRARY,
        purl=purl,
        bom_ref=str(purl),
    )


def _file(path: str, entry: Entry) -> Component:
    digest = hashlib.sha256(entry.content).hexdigest()
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest)] if entry.kind == "file" else []
    return Component(name=path, type=ComponentType.FILE, bom_ref=f"file:{path}", hashes=hashes)
