"""What a cluster was like when a test failed, in few lines: of a run in CI nobody sees more than its output.

Only the ends of that output are kept, so the lines come last, before the summary, and there are at most
``LINES``: of the first failure, since later ones are often its consequences.
"""

import json
import subprocess
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from towpath.lab.rundir import LabError

LINES, WIDTH = 60, 240
_ROWS, _WARNINGS, _WORDS = 8, 6, 4

Object = dict[str, Any]
Kubectl = Callable[..., str]
"""What kubectl prints, on stderr if there is nothing else."""


class Memory:
    """What there is to tell at the end of a run."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def keep(self, test: str, clusters: Iterable[tuple[str, Iterable[str]]]) -> None:
        """Note what these tell of themselves, by name, unless a test failed before this one. A cluster that
        cannot be asked says why: nothing is raised.
        """
        if self.lines:
            return
        self.lines.append(f"when {test} failed")
        for name, lines in clusters:
            self.lines.append(f"{name}:")
            try:
                for line in lines:
                    self.lines.append(f"  {line}"[:WIDTH])
            except (LabError, OSError, ValueError, LookupError, TypeError, subprocess.SubprocessError) as bad:
                self.lines.append(f"  {type(bad).__name__}: {bad}"[:WIDTH])
        del self.lines[LINES:]


def unwell(kubectl: Kubectl) -> Iterator[str]:
    """Nodes, namespaces and pods that are not as they should be, and the last warnings. Raises LabError."""
    yield from _unwell("node", items(kubectl, "nodes"), _node)
    yield from _unwell("namespace", items(kubectl, "namespaces"), _namespace)
    yield from _unwell("pod", items(kubectl, "pods"), _pod)
    warnings = [event for event in items(kubectl, "events") if event.get("type") == "Warning"]
    yield from map(_event, sorted(warnings, key=_last_seen)[-_WARNINGS:])


def agents(kubectl: Kubectl) -> Iterator[str]:
    """The last words of the network's agents. Raises LabError."""
    for pod in items(kubectl, "pods"):
        if pod["metadata"].get("labels", {}).get("k8s-app") == "towpath":
            words = kubectl("logs", "-n", pod["metadata"]["namespace"], pod["metadata"]["name"], "--tail=60")
            yield from tail(f"agent on {pod['spec'].get('nodeName')}", words)


def items(kubectl: Kubectl, kind: str) -> list[Object]:
    """All of a kind. Raises LabError."""
    text = kubectl("get", kind, "-A", "-o", "json")
    try:
        return list(json.loads(text)["items"])
    except ValueError:
        raise LabError(f"kubectl get {kind}: {text.strip()}") from None


def _unwell(kind: str, objects: list[Object], judge: Callable[[Object], str]) -> Iterator[str]:
    found = [(one["metadata"], words) for one in objects if (words := judge(one))]
    for meta, words in found[:_ROWS]:
        gone = f" deleted {meta['deletionTimestamp']}" if "deletionTimestamp" in meta else ""
        held = f" held by {', '.join(meta['finalizers'])}" if gone and meta.get("finalizers") else ""
        yield f"{kind} {'/'.join(filter(None, (meta.get('namespace'), meta['name'])))}{gone}{held}: {words}"
    if len(found) > _ROWS:
        yield f"and {len(found) - _ROWS} more of {len(objects)}"


def _node(node: Object) -> str:
    bad = [one for one in _conditions(node) if (one["type"] == "Ready") != (one["status"] == "True")]
    return "; ".join(map(_condition, bad))


def _namespace(namespace: Object) -> str:
    if namespace.get("status", {}).get("phase") != "Terminating":
        return ""
    true = [one for one in _conditions(namespace) if one["status"] == "True"]
    return "; ".join(["Terminating", *map(_condition, true)])


def _pod(pod: Object) -> str:
    status = pod.get("status", {})
    phase, conditions = status.get("phase", ""), _conditions(pod)
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    if "deletionTimestamp" not in pod["metadata"] and (ready or phase == "Succeeded"):
        return ""
    words = [f"{phase} on {pod['spec'].get('nodeName', 'no node')}"]
    words += [_condition(one) for one in conditions if one["status"] != "True"]
    for one in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        for name, state in one.get("state", {}).items():
            if name != "running":
                told = [str(state[key]) for key in ("reason", "exitCode", "message") if state.get(key)]
                words.append(f"{one['name']} {name} {' '.join(told)}, {one.get('restartCount', 0)} restarts")
    return "; ".join(words)


def _conditions(of: Object) -> list[Object]:
    return list(of.get("status", {}).get("conditions") or [])


def _condition(one: Object) -> str:
    why = " ".join(filter(None, (one.get("reason"), one.get("message"))))
    return f"{one['type']}={one['status']} {why}".strip()


def _event(event: Object) -> str:
    about = event.get("involvedObject", {})
    where = "/".join(filter(None, (about.get("kind"), about.get("namespace"), about.get("name"))))
    return f"event {_last_seen(event)} {where}: {event.get('reason')}: {event.get('message')}"


def _last_seen(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def tail(whose: str, text: str) -> Iterator[str]:
    """Warnings and worse, or the very last line: what goes well is no news."""
    lines = [line for line in text.splitlines() if line.strip()]
    loud = [line for line in lines if '"level":"info"' not in line and '"level":"debug"' not in line]
    yield from (f"{whose}: {line}" for line in loud[-_WORDS:] or lines[-1:] or ["nothing"])
