"""Debian packages as files of an image: unpacked, sifted, with the database that scanners read."""

import hashlib
import subprocess
from pathlib import Path

from towpath.image.apt import records, run
from towpath.image.errors import ImageError
from towpath.image.lock import Package, Recipe
from towpath.image.tree import Entry, Tree, file, from_tar, link, merged

# Debian 12 has these merged into /usr; its packages still ship some files under the old names.
_MERGED = ("bin", "sbin", "lib", "lib64")
_AUTHORITIES = "usr/share/ca-certificates/mozilla/"
_BUNDLE, _DEFAULT = "etc/ssl/certs/ca-certificates.crt", "usr/lib/ssl/cert.pem"
GENERATED = (*_MERGED, _BUNDLE, _DEFAULT)  # what no package has, and ``unpack`` makes


def unpack(packages: dict[Package, Path], recipe: Recipe) -> Tree:
    """The files of all packages that the recipe wants, and the package database. Raises ImageError.

    No maintainer script is run: what theirs would make and a minimal image needs is made by ``base``.
    """
    parts: list[Tree] = [{name: link(f"usr/{name}") for name in _MERGED}]
    status: list[str] = []
    authorities = b""
    for package, path in packages.items():
        everything = _renamed(from_tar(_tar("--fsys-tarfile", path), package.name))
        authorities += b"".join(e.content for p, e in sorted(everything.items()) if _authority(p))
        tree = {p: e for p, e in everything.items() if recipe.wanted(p)}
        tree = {p: e for p, e in tree.items() if e.kind != "folder" or _has_files(p, tree)}
        if special := [p for p, e in tree.items() if e.mode & 0o6000]:
            raise ImageError(f"{package.name}: {special[0]} is setuid or setgid", "drop it in the recipe")
        parts += [tree, _database(package, path, tree, status)]
    parts.append({"var/lib/dpkg/status": file("\n\n".join(status) + "\n")})
    if authorities:
        parts.append({_BUNDLE: file(authorities), _DEFAULT: link(f"/{_BUNDLE}")})
    return merged(parts)


def _tar(option: str, path: Path) -> bytes:
    done = subprocess.run(["dpkg-deb", option, str(path)], capture_output=True, check=False, timeout=120)
    if done.returncode:
        raise ImageError(f"{path.name}: dpkg-deb: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _renamed(tree: Tree) -> Tree:
    return {
        f"usr/{path}" if path.split("/", 1)[0] in _MERGED and "/" in path else path: entry
        for path, entry in tree.items()
        if path not in _MERGED
    }


def _authority(path: str) -> bool:
    return path.startswith(_AUTHORITIES) and path.endswith(".crt")


def _has_files(folder: str, tree: Tree) -> bool:
    return any(path.startswith(f"{folder}/") and entry.kind != "folder" for path, entry in tree.items())


def _database(package: Package, path: Path, tree: Tree, status: list[str]) -> Tree:
    """The package's part of /var/lib/dpkg: its paragraph goes to ``status``, its files are listed."""
    control = run(["dpkg-deb", "--field", str(path)]).strip()
    (record,) = records(control)
    if record["Version"] != package.version:
        raise ImageError(f"{path.name} is {record['Version']}, and the lock says {package.version}")
    first, _, rest = control.partition("\n")
    status.append(f"{first}\nStatus: install ok installed\n{rest}")
    name = package.name
    if record.get("Multi-Arch") == "same":
        name += f":{record['Architecture']}"
    sums = "".join(f"{_md5(e)}  {p}\n" for p, e in sorted(tree.items()) if e.kind == "file")
    return {
        f"var/lib/dpkg/info/{name}.list": file("".join(f"/{p}\n" for p in sorted(tree))),
        f"var/lib/dpkg/info/{name}.md5sums": file(sums),
    }


def _md5(entry: Entry) -> str:
    return hashlib.md5(entry.content, usedforsecurity=False).hexdigest()  # the database's format


def base(uid: int) -> Tree:
    """What maintainer scripts would have made, and the agent's user."""
    return {
        "etc/passwd": file(
            "root:x:0:0:root:/:/usr/sbin/nologin\n"
            f"towpath:x:{uid}:{uid}:Towpath agent:/:/usr/sbin/nologin\n"
            "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        ),
        "etc/group": file(f"root:x:0:\ntowpath:x:{uid}:\nnogroup:x:65534:\n"),
        "etc/nsswitch.conf": file(
            "passwd: files\ngroup: files\nhosts: files dns\nnetworks: files\nprotocols: files\n"
            "services: files\n"
        ),
        "etc/hosts": file("127.0.0.1\tlocalhost\n::1\tlocalhost\n"),
        "etc/resolv.conf": file(""),
        "usr/bin/python3": link("python3.11"),
        "tmp": Entry("folder", 0o1777),
        **{name: Entry("folder", 0o755) for name in ("dev", "etc", "proc", "run", "sys", "var", "var/lib")},
    }
