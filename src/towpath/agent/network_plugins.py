"""Plugins of extra networks, executed by the shim as libcni would execute them.

Source: libcni's ``invoke`` package and CNI 1.1.0: result or error are on standard output, what is on standard
error is for people; the first folder of CNI_PATH that has the executable counts.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from towpath.cni.errors import CniError
from towpath.cni.request import Request
from towpath.cni.result import Result
from towpath.cni.version import SUPPORTED
from towpath.log import get_logger

log = get_logger("towpath.networks")

Document = dict[str, Any]
_NOT_EXECUTED = 127
_ABSENT = "No such file or directory"
_SHOWN = 400


class PluginFailed(Exception):
    """A plugin did not do it. ``code`` its own where it gave one, else 0; ``absent``: it is not installed."""

    def __init__(self, kind: str, command: str, problem: str, *, code: int = 0, absent: bool = False) -> None:
        super().__init__(f"plugin {kind}: {command}: {problem}")
        self.kind, self.command, self.code, self.absent = kind, command, code, absent


class Plugins:
    """Runs them, each for at most ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._folders: dict[str, str] = {}

    async def run(
        self,
        r: Request,
        kind: str,
        environment: Mapping[str, str],
        stdin: bytes,
        seconds: float | None = None,
    ) -> bytes:
        """What it printed. Raises PluginFailed; ConnectionError when the runtime hung up."""
        command = environment["CNI_COMMAND"]
        patience = seconds or self.seconds
        for folder in self._search(kind, r.path):
            done = await r.execute(f"{folder}/{kind}", environment, stdin, patience)
            words = done.stderr.decode(errors="replace").strip()
            if done.status == _NOT_EXECUTED and words == _ABSENT:
                self._folders.pop(kind, None)
                continue
            self._folders[kind] = folder
            if done.late:
                raise PluginFailed(kind, command, f"it ran longer than {patience:g} s and was killed")
            if done.status == 0:
                return done.stdout
            raise _failure(kind, command, done.status, done.stdout, words)
        looked = ", ".join(r.path) or "nowhere: CNI_PATH is empty"
        raise PluginFailed(kind, command, f"it is not installed (looked in {looked})", absent=True)

    def _search(self, kind: str, path: tuple[str, ...]) -> list[str]:
        """The folders, the one in which it was found last first."""
        last = self._folders.get(kind)
        folders = [folder.rstrip("/") or "/" for folder in path if folder.startswith("/")]
        return [last, *(f for f in folders if f != last)] if last in folders else folders


def result_of(kind: str, stdout: bytes, version: str) -> Document:
    """A result as the next plugin is given it: in the version of the configuration. Raises PluginFailed."""
    try:
        document = msgspec.json.decode(stdout)
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")
        own = document.get("cniVersion") or version
        parsed = Result.parse(stdout, version)
        if own != version and own in SUPPORTED:
            converted: Document = msgspec.json.decode(parsed.to_version(version))
            return converted
    except (msgspec.DecodeError, ValueError, RecursionError, CniError) as error:
        text = stdout[:_SHOWN].decode(errors="replace").strip()
        raise PluginFailed(kind, "ADD", f"what it printed is no result: {error}: {text!r}") from error
    return {**document, "cniVersion": version}


def _failure(kind: str, command: str, status: int, stdout: bytes, words: str) -> PluginFailed:
    """From the error it printed, else from its status and what it said to people."""
    how = f"killed by signal {status - 128}" if 128 < status < 192 else f"exit status {status}"
    try:
        error = msgspec.json.decode(stdout)
        code, text = int(error["code"]), str(error["msg"])
        if details := str(error.get("details") or ""):
            text = f"{text}: {details}"
        return PluginFailed(kind, command, f"{text} (code {code})", code=code)
    except (msgspec.DecodeError, ValueError, TypeError, KeyError, RecursionError):
        said = words or stdout.decode(errors="replace").strip()
        return PluginFailed(kind, command, f"{how}{f': {said[:_SHOWN]}' if said else ''}")
