"""Files: programs that have no place in an image, rights, owners, users, layers, times, budgets."""

import posixpath
import struct
from collections.abc import Iterator
from datetime import datetime

import msgspec

from towpath.image.audit.contents import File, Image
from towpath.image.audit.packages import Inventory, altered, unowned
from towpath.image.audit.rules import Found

_SHELLS = """
    sh ash bash busybox csh dash elvish fish ksh mksh nu pwsh rbash tcsh toybox xonsh yash zsh
"""
_MANAGERS = """
    apt apt-cache apt-get apk aptitude conda dnf dpkg dpkg-deb easy_install gem microdnf npm opkg pip
    pnpm rpm snap uv yarn yum zypper
"""
_COMPILERS = """
    as c++ c89 c99 cargo cc clang clang++ cmake cpp g++ gcc gdb gdbserver go gofmt javac ld ld.bfd
    ld.gold lldb ltrace make nasm ninja nm objcopy objdump perl rustc strace tcc
"""
SHELLS, MANAGERS, COMPILERS = (frozenset(t.split()) for t in (_SHELLS, _MANAGERS, _COMPILERS))
_PLACES = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin", "usr/lib/gcc")
_LEFTOVERS = (
    "var/cache/apt/", "var/lib/apt/lists/", "var/cache/apk/", "etc/apk/cache/", "var/cache/dnf/",
    "var/cache/yum/", "var/cache/zypp/", "var/log/", "root/.cache/", "usr/share/man/", "tmp/", "var/tmp/",
)  # fmt: skip
_TESTS = ("/tests/", "/test/", "/testing/fixtures/")
_CAPABILITIES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
    SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
    AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
    PERFMON BPF CHECKPOINT_RESTORE
"""  # in the order of linux/capability.h


class Budget(msgspec.Struct, frozen=True):
    """What an image may cost: bytes compressed, entries, layers."""

    compressed: int = 70_000_000
    files: int = 10_000
    layers: int = 16


def check_files(image: Image, found: Inventory, listed: dict[str, str], budget: Budget) -> Iterator[Found]:
    """``listed``: files the image's own SBOM answers for, path -> SHA-256."""
    yield from _programs(image)
    yield from _leftovers(image)
    yield from _rights(image)
    yield from _users(image)
    if found.databases:
        for file in unowned(image, found, listed):
            yield Found(code="TP8128", path=file.path, message="belongs to no package")
    for file in altered(image, found):
        yield Found(code="TP8129", path=file.path, message=f"is not what {found.owners[file.path]} delivered")
    yield from _layers(image)
    yield from _times(image)
    yield from _budget(image, budget)


def _programs(image: Image) -> Iterator[Found]:
    for file in image.programs():
        folder, _, name = file.path.rpartition("/")
        if file.kind == "link":
            target = image.find(file.path)
            if target is None or target.kind != "file" or folder not in _PLACES:
                continue
            if posixpath.basename(target.path) == name:
                continue  # the same program under another folder's name
        name = name.rpartition("-gnu-")[2]  # x86_64-linux-gnu-gcc
        name = name.rstrip("0123456789.").rstrip("-") or name
        for names, code, what in (
            (SHELLS, "TP8120", "a shell"),
            (MANAGERS, "TP8121", "a package manager"),
            (COMPILERS, "TP8122", "a compiler, debugger or interpreter for building"),
        ):
            if (
                name in names
                and (folder in _PLACES or file.kind == "file")
                and not folder.startswith("usr/share/")
            ):
                yield Found(code=code, path=file.path, message=f"is {what}")


def _leftovers(image: Image) -> Iterator[Found]:
    seen: dict[str, list[File]] = {}
    for file in image.files.values():
        if file.kind != "file":
            continue
        for prefix in _LEFTOVERS:
            if file.path.startswith(prefix):
                seen.setdefault(prefix, []).append(file)
        if any(part in f"/{file.path}" for part in _TESTS):
            rooted = f"/{file.path}"
            place = rooted[1 : min(rooted.find(p) for p in _TESTS if p in rooted) + 1]
            seen.setdefault(f"{place}tests", []).append(file)
    for prefix, files in sorted(seen.items()):
        size = sum(f.size for f in files)
        yield Found(
            code="TP8123",
            path=prefix,
            message=f"{len(files)} files, {size} bytes, not needed to run: {files[0].path}",
        )


def _rights(image: Image) -> Iterator[Found]:
    for file in image.files.values():
        mode = f"mode {file.mode:04o}"
        if file.kind in ("device", "fifo"):
            yield Found(code="TP8132", path=file.path, message=f"is a {file.kind}")
        if file.kind == "file" and file.mode & 0o6000:
            what = "setuid" if file.mode & 0o4000 else "setgid"
            yield Found(
                code="TP8124", path=file.path, message=f"is {what}, {mode}, owner {file.uid}:{file.gid}"
            )
        if file.capability:
            names = ", ".join(capabilities(file.capability))
            yield Found(code="TP8125", path=file.path, message=f"has {names}")
        sticky = file.kind == "folder" and file.mode & 0o1000
        if file.kind != "link" and file.mode & 0o002 and not sticky:
            yield Found(code="TP8126", path=file.path, message=f"anybody can write it, {mode}")


def capabilities(raw: bytes) -> list[str]:
    """Names in a ``security.capability`` attribute (linux/capability.h, revisions 1 to 3)."""
    if len(raw) < 12:
        return ["capabilities that cannot be read"]
    words = struct.unpack_from("<5I", raw.ljust(20, b"\0"))
    permitted = (words[1] | words[3] << 32) | (words[2] | words[4] << 32)
    return [name for bit, name in enumerate(_CAPABILITIES.split()) if permitted >> bit & 1] or [
        "an empty set"
    ]


def _users(image: Image) -> Iterator[Found]:
    users, groups = _fields(image, "etc/passwd", 4), _fields(image, "etc/group", 3)
    by_uid: dict[str, str] = {}
    for name, password, uid, *_ in users:
        if password == "":
            yield Found(code="TP8131", path="etc/passwd", message=f"{name} has an empty password")
        if uid in by_uid:
            yield Found(code="TP8131", path="etc/passwd", message=f"{name} and {by_uid[uid]} share uid {uid}")
        by_uid[uid] = name
    by_gid: dict[str, str] = {}
    for name, _, gid, *_ in groups:
        if gid in by_gid:
            yield Found(code="TP8131", path="etc/group", message=f"{name} and {by_gid[gid]} share gid {gid}")
        by_gid[gid] = name
    for name, password, *_ in _fields(image, "etc/shadow", 3):
        if password == "":
            yield Found(code="TP8131", path="etc/shadow", message=f"{name} has an empty password")
    if not users:
        return  # TP8160 says that the file is missing
    uids = {"0", "65534", *by_uid}
    gids = {"0", "65534", *(fields[2] for fields in groups)}
    for file in image.files.values():
        if str(file.uid) not in uids or str(file.gid) not in gids:
            owner = f"{file.uid}:{file.gid}"
            yield Found(code="TP8127", path=file.path, message=f"belongs to {owner}, unknown here")


def _fields(image: Image, path: str, least: int) -> list[list[str]]:
    lines = (image.read(path) or b"").decode(errors="replace").splitlines()
    return [fields for line in lines if len(fields := line.split(":")) >= least]


def _layers(image: Image) -> Iterator[Found]:
    for file in image.hidden:
        how = "replaced" if file.path in image.files else "deleted"
        yield Found(
            code="TP8190",
            path=file.path,
            message=f"{file.size} bytes in layer {file.layer}, {how} by a later one: still in the image",
        )


def _times(image: Image) -> Iterator[Found]:
    created = (image.config or {}).get("created")
    if not created:
        return
    try:
        limit = datetime.fromisoformat(str(created)).timestamp()
    except ValueError:
        return
    late = [f for f in image.files.values() if f.mtime > limit + 1]
    if late:
        yield Found(
            code="TP8191",
            path=late[0].path,
            message=f"{len(late)} entries are younger than the image: no SOURCE_DATE_EPOCH was kept to",
        )


def _budget(image: Image, budget: Budget) -> Iterator[Found]:
    for what, number, most in (
        ("bytes compressed", image.compressed, budget.compressed),
        ("entries", len(image.files), budget.files),
        ("layers", image.layers, budget.layers),
    ):
        if number > most:
            yield Found(code="TP8192", path=what, message=f"{number} {what}, {most} are allowed")
