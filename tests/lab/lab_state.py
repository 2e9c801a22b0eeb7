"""What a lab was like when a test failed, in few lines: of a run in CI nobody sees more than its output.

Only the ends of that output are kept, so the lines come last, before the summary, and there are at most
``LINES``: of the first failure, since later ones are often its consequences.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from towpath.lab.client import LabClient, result_of
from towpath.lab.rundir import LOG, LabError

LINES, WIDTH = 60, 240
_PATIENCE = 20.0  # seconds for one answer: a lab that is stuck says nothing, and the run goes on
_ROWS, _WARNINGS, _WORDS = 8, 6, 4

Object = dict[str, Any]


class Memory:
    """What there is to tell at the end of a run."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def keep(self, test: str, labs: Iterable[str]) -> None:
        """Look at the labs that run, unless a test failed before this one. Raises nothing."""
        if self.lines:
            return
        self.lines.append(f"when {test} failed")
        for name in labs:
            self.lines.append(f"lab {name}:")
            self.lines += [f"  {line}"[:WIDTH] for line in _lab(name)]
        del self.lines[LINES:]


MEMORY = Memory()


def _lab(name: str) -> Iterator[str]:
    try:
        client = LabClient(name)
        control_plane = _component(client, "apiserver")  # first: it says so if no such lab runs
        nodes = _items(client, "nodes")
        yield from _unwell("node", nodes, _node)
        yield from _unwell("namespace", _items(client, "namespaces"), _namespace)
        pods = _items(client, "pods")
        yield from _unwell("pod", pods, pod_line)
        warnings = [event for event in _items(client, "events") if event.get("type") == "Warning"]
        yield from map(_event, sorted(warnings, key=_last_seen)[-_WARNINGS:])
        yield from _tail("control plane", control_plane)
        for node in nodes:
            of_node = node["metadata"]["name"]
            yield from _tail(f"kubelet of {of_node}", _component(client, "kubelet", of_node))
        for pod in pods:
            if pod["metadata"].get("labels", {}).get("k8s-app") == "towpath":
                of_pod = pod["metadata"]["name"]
                words = _kubectl(client, "logs", "-n", "kube-system", of_pod, "--tail=60")
                yield from _tail(f"agent on {pod['spec'].get('nodeName')}", words)
        yield from _tail("lab", (client.folder / LOG).read_text(errors="replace"))
    except (LabError, OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as failed:
        yield f"{type(failed).__name__}: {failed}"


def _kubectl(client: LabClient, *arguments: str) -> str:
    environment = {**os.environ, "KUBECONFIG": client.kubeconfig}
    command = ["kubectl", f"--request-timeout={_PATIENCE:.0f}s", *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=_PATIENCE * 2, check=False
    )
    return done.stdout or done.stderr


def _items(client: LabClient, kind: str) -> list[Object]:
    text = _kubectl(client, "get", kind, "-A", "-o", "json")
    try:
        return list(json.loads(text)["items"])
    except ValueError:
        raise LabError(f"kubectl get {kind}: {text.strip()}") from None


def _component(client: LabClient, component: str, node: str = "") -> str:
    with client.open("component-logs", component=component, node=node) as connection:
        connection.settimeout(_PATIENCE)
        return str(result_of(connection))


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


def pod_line(pod: Object) -> str:
    """What is not well about it, empty if nothing is."""
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


def _tail(whose: str, text: str) -> Iterator[str]:
    """Warnings and worse, or the very last line: what goes well is no news."""
    lines = [line for line in text.splitlines() if line.strip()]
    loud = [line for line in lines if '"level":"info"' not in line and '"level":"debug"' not in line]
    yield from (f"{whose}: {line}" for line in loud[-_WORDS:] or lines[-1:] or ["nothing"])
