"""Frames between the shim and the agent (the format is told at the top of shim/towpath-cni.c). Pure."""

import struct

import msgspec

MAGIC = b"TWP1"
HEADER = struct.Struct("<4sI")
EXECUTED = struct.Struct("<cII")
LENGTH = struct.Struct("<I")

MAX_REQUEST = 2 << 20
MAX_OUTPUT = 1 << 20


class BadFrame(Exception):
    """Bytes that are not of this protocol; the connection is of no use any more."""


class Executed(msgspec.Struct, frozen=True):
    """What became of a delegate. ``status`` as in a shell: 127 not executed, 128 + n killed by signal n.

    ``late``: it was to be killed, as it took too long.
    """

    status: int
    stdout: bytes
    stderr: bytes
    late: bool = False


def body_length(header: bytes) -> int:
    """Length of the body a request header announces. Raises BadFrame."""
    magic, length = HEADER.unpack(header)
    if magic != MAGIC or length > MAX_REQUEST:
        raise BadFrame(f"not a request: {header!r}")
    return int(length)


def parse_body(body: bytes) -> tuple[dict[str, str], bytes]:
    """Environment and stdin of a request. Raises BadFrame.

    Bytes of the environment that are not UTF-8 become surrogates, as in ``os.environ``.
    """
    environment: dict[str, str] = {}
    at = 0
    while True:
        end = body.find(b"\0", at)
        if end < 0:
            raise BadFrame("the environment does not end")
        if end == at:
            return environment, body[at + 1 :]
        key, equals, value = body[at:end].decode("utf-8", "surrogateescape").partition("=")
        if not equals:
            raise BadFrame(f"{key!r} is not KEY=VALUE")
        environment[key] = value
        at = end + 1


def answer(exit_code: int, stdout: bytes) -> bytes:
    """The frame that ends a call: what the shim prints, and its status."""
    return b"R" + struct.pack("<II", exit_code, len(stdout)) + stdout


def execute(path: str, env: dict[str, str], stdin: bytes) -> bytes:
    """The frame that asks the shim to execute a delegate. Raises ValueError for strings with a NUL."""
    strings = [path, *(f"{k}={v}" for k, v in env.items())]
    if any("\0" in s or not s for s in strings):
        raise ValueError("a path or variable of a delegate is empty or has a NUL")
    body = b"".join(s.encode("utf-8", "surrogateescape") + b"\0" for s in strings) + b"\0" + stdin
    return b"E" + LENGTH.pack(len(body)) + body


def hand_over(what: str, path: str) -> bytes:
    """The frame that asks the shim for descriptors. Raises ValueError for a path with a NUL."""
    if "\0" in path or not path:
        raise ValueError("a path is empty or has a NUL")
    body = what.encode() + b"\0" + path.encode("utf-8", "surrogateescape")
    return b"H" + LENGTH.pack(len(body)) + body


KILL = b"K"
"""Has the shim kill the delegate that it executes, which it then answers as any other."""


def executed_header(header: bytes) -> tuple[int, int]:
    """Status and length of stdout of an ``X`` frame. Raises BadFrame."""
    kind, status, length = EXECUTED.unpack(header)
    if kind != b"X" or length > MAX_OUTPUT:
        raise BadFrame(f"not the outcome of a delegate: {header!r}")
    return status, length


def stderr_length(header: bytes) -> int:
    """Length of stderr, which follows stdout. Raises BadFrame."""
    (length,) = LENGTH.unpack(header)
    if length > MAX_OUTPUT:
        raise BadFrame(f"{length} bytes of stderr")
    return int(length)
