"""Programs and libraries: how they are hardened, whether all they need is there, which cryptography is in."""

import io
import posixpath
from collections.abc import Iterator
from typing import Any

import msgspec
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from towpath.image.audit.contents import File, Image
from towpath.image.audit.rules import Found

_MACHINES = {"EM_X86_64": "amd64", "EM_AARCH64": "arm64", "EM_386": "386", "EM_ARM": "arm",
             "EM_S390": "s390x", "EM_PPC64": "ppc64le", "EM_RISCV": "riscv64"}  # fmt: skip
_MULTIARCH = ("x86_64-linux-gnu", "aarch64-linux-gnu")
_DEFAULT = ("lib", "usr/lib", "lib64", "usr/lib64", "usr/local/lib")
_CANARY_FROM = 4096  # bytes of code: smaller programs may have nothing to guard
_BIND_NOW, _NOW, _PIE = 0x8, 0x1, 0x8000000  # DF_BIND_NOW, DF_1_NOW, DF_1_PIE
_DAMAGED = (ELFError, ValueError, KeyError, IndexError, AttributeError, OverflowError)
_TRUSTED = ("$ORIGIN", "${ORIGIN}", "/usr/lib", "/lib", "/opt/")


class Elf(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of one ELF file. ``relro``: none, partial, full; ``soname`` names of needed libraries."""

    machine: str
    executable: bool
    pie: bool
    interpreter: str
    relro: str
    exec_stack: bool
    canary: bool
    code: int
    needed: tuple[str, ...]
    rpath: tuple[str, ...]
    go: bool
    boring: bool


def read_elf(content: bytes) -> Elf | None:
    """None: not ELF. Raises ELFError and the like for damaged ones."""
    if content[:4] != b"\x7fELF":
        return None
    elf: Any = ELFFile(io.BytesIO(content))  # its types are not complete
    needed: list[str] = []
    rpath: list[str] = []
    now = flags_pie = named = False
    dynamic = next((s for s in elf.iter_segments() if s["p_type"] == "PT_DYNAMIC"), None)
    for tag in dynamic.iter_tags() if dynamic else ():
        if tag.entry.d_tag == "DT_NEEDED":
            needed.append(tag.needed)
        elif tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH"):
            rpath += getattr(tag, "rpath", getattr(tag, "runpath", "")).split(":")
        elif tag.entry.d_tag == "DT_SONAME":
            named = True  # a library, though libc.so.6 can be run as well
        elif tag.entry.d_tag == "DT_BIND_NOW":
            now = True
        elif tag.entry.d_tag == "DT_FLAGS":
            now = now or bool(tag.entry.d_val & _BIND_NOW)
        elif tag.entry.d_tag == "DT_FLAGS_1":
            now = now or bool(tag.entry.d_val & _NOW)
            flags_pie = bool(tag.entry.d_val & _PIE)
    interpreter = next((s.get_interp_name() for s in elf.iter_segments() if s["p_type"] == "PT_INTERP"), "")
    stack = next((s for s in elf.iter_segments() if s["p_type"] == "PT_GNU_STACK"), None)
    relro = any(s["p_type"] == "PT_GNU_RELRO" for s in elf.iter_segments())
    position_free = elf["e_type"] == "ET_DYN"
    executable = elf["e_type"] == "ET_EXEC" or flags_pie or (bool(interpreter) and not named)
    return Elf(
        machine=_MACHINES.get(elf["e_machine"], str(elf["e_machine"])),
        executable=executable,
        pie=position_free,
        interpreter=interpreter,
        relro="full" if relro and (now or not dynamic) else "partial" if relro else "none",
        exec_stack=stack is None or bool(stack["p_flags"] & 1),
        canary=b"__stack_chk_fail" in content,
        code=sum(s["p_filesz"] for s in elf.iter_segments() if s["p_type"] == "PT_LOAD" and s["p_flags"] & 1),
        needed=tuple(needed),
        rpath=tuple(filter(None, rpath)),
        go=elf.get_section_by_name(".go.buildinfo") is not None,
        boring=b"_Cfunc__goboringcrypto_" in content,
    )


def check_elf(image: Image) -> Iterator[Found]:
    """Every ELF file of the image."""
    architecture = str((image.config or {}).get("architecture") or "")
    cache: dict[str, Elf | None] = {}
    for file in image.files.values():
        if file.kind != "file" or file.size < 64:
            continue
        if image.spool.read(file, 4) != b"\x7fELF":
            continue
        try:
            if file.sha256 not in cache:
                cache[file.sha256] = read_elf(image.spool.read(file))
            elf = cache[file.sha256]
        except _DAMAGED as damaged:
            yield Found(code="TP8147", path=file.path, message=f"cannot be read: {type(damaged).__name__}")
            continue
        if elf:
            yield from _hardening(file, elf)
            yield from _closure(image, file, elf)
            yield from _cryptography(file, elf)
            if architecture and elf.machine != architecture:
                yield Found(
                    code="TP8146",
                    path=file.path,
                    message=f"is for {elf.machine}, the image for {architecture}",
                )


def _hardening(file: File, elf: Elf) -> Iterator[Found]:
    if elf.executable and not elf.pie:
        yield Found(code="TP8140", path=file.path, message="is loaded at a fixed address (no PIE)")
    # Libraries are bound lazily by Debian's and others' choice; of a static program nothing is relocated.
    if elf.needed and (elf.relro == "none" or (elf.executable and elf.relro == "partial")):
        yield Found(code="TP8141", path=file.path, message=f"RELRO is {elf.relro}")
    if elf.exec_stack:
        yield Found(code="TP8142", path=file.path, message="its stack can be executed (no NX)")
    # A library without arrays on its stack has no trace of the guard, nor has a stripped static program: only
    # programs that would take it from a library are judged.
    if elf.executable and elf.needed and not elf.canary and not elf.go and elf.code >= _CANARY_FROM:
        yield Found(code="TP8143", path=file.path, message="has no stack protector")
    for path in elf.rpath:
        if not path.startswith(_TRUSTED):
            yield Found(code="TP8144", path=file.path, message=f"looks for libraries in {path!r}")


def _closure(image: Image, file: File, elf: Elf) -> Iterator[Found]:
    if elf.interpreter and image.find(elf.interpreter.lstrip("/")) is None:
        yield Found(code="TP8145", path=file.path, message=f"its loader {elf.interpreter} is missing")
    folder = posixpath.dirname(file.path)
    places = [p.replace("$ORIGIN", folder).replace("${ORIGIN}", folder).lstrip("/") for p in elf.rpath]
    places += _search(image)
    for name in elf.needed:
        candidates = [name.lstrip("/")] if "/" in name else [f"{p}/{name}" for p in places]
        if not any(image.find(c) for c in candidates):
            yield Found(code="TP8145", path=file.path, message=f"needs {name}, which is missing")


def _search(image: Image) -> list[str]:
    """Folders of the dynamic loader: the built-in ones, and those of /etc/ld.so.conf and its fragments."""
    places = [f"{base}/{name}" for base in ("lib", "usr/lib") for name in _MULTIARCH] + list(_DEFAULT)
    fragments = [f for f in image.below("etc/ld.so.conf.d") if f.kind == "file"]
    texts = [image.read("etc/ld.so.conf") or b"", *(image.spool.read(f) for f in fragments)]
    for text in texts:
        places += [line.strip().lstrip("/") for line in text.decode(errors="replace").splitlines()
                   if line.startswith("/")]  # fmt: skip
    return places


def _cryptography(file: File, elf: Elf) -> Iterator[Found]:
    name = posixpath.basename(file.path)
    if elf.go:
        what = "uses BoringCrypto" if elf.boring else "uses Go's own cryptography, not BoringCrypto"
        yield Found(code="TP8150" if elf.boring else "TP8151", path=file.path, message=what)
    elif name.startswith(("libcrypto.so", "libgnutls.so", "libnss3.so", "libwolfssl.so", "libmbedcrypto.so")):
        yield Found(code="TP8150", path=file.path, message="is a cryptographic library")
    elif file.path.endswith("/ossl-modules/legacy.so"):
        what = "is OpenSSL's legacy provider: MD4, RC4, DES, Blowfish and others"
        yield Found(code="TP8152", path=file.path, message=what)
    elif name == "fips.so":
        yield Found(code="TP8150", path=file.path, message="is OpenSSL's FIPS provider")
