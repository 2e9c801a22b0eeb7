"""Who runs on the node: Canal's daemons, and CNI plugins in the middle of a call. Needs the host's
processes.
"""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

_PROC = Path("/proc")


def canal_daemons(*, multus: bool = False) -> list[str]:
    """Felix and flanneld in the calling thread's network namespace, as "NAME (PID)"; what keeps Multus's
    configuration there, too, if it is asked for.
    """
    here = (_PROC / "thread-self/ns/net").readlink()
    found = []
    for pid, words in _commands():
        name = _daemon(words) or (_multus(words) if multus else "")
        if name and _same_network(pid, here):
            found.append(f"{name} ({pid})")
    return found


def _daemon(words: list[str]) -> str:
    programs = [Path(word).name for word in words[:2]]
    if "flanneld" in programs:
        return "flanneld"
    if "calico-node" in programs and "-felix" in words:
        return "calico-node -felix"
    return "calico-felix" if "calico-felix" in programs else ""


def _multus(words: list[str]) -> str:
    programs = [Path(word).name for word in words[:2]]
    return next((name for name in ("multus-daemon", "thin_entrypoint") if name in programs), "")


def calls(plugins: Collection[str]) -> list[str]:
    """CNI calls of these plugins that are under way on this node, as "NAME (PID)".

    A plugin's first thread stays in the namespace it was started in; those that enter a pod's are others.
    """
    here = (_PROC / "thread-self/ns/net").readlink()
    wanted = frozenset(plugins)
    found = []
    for pid, words in _commands():
        names = wanted & {Path(word).name for word in words[:2]}
        if names and _in_call(pid) and _same_network(pid, here):
            found.append(f"{min(names)} ({pid})")
    return found


def _commands() -> Iterator[tuple[int, list[str]]]:
    for folder in _PROC.iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it ended
        if words[0]:
            yield int(folder.name), words


def _in_call(pid: int) -> bool:
    try:
        return any(
            line.startswith(b"CNI_COMMAND=")
            for line in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        )
    except OSError:
        return False


def _same_network(pid: int, here: Path) -> bool:
    try:
        return (_PROC / str(pid) / "ns/net").readlink() == here
    except OSError:
        return False
