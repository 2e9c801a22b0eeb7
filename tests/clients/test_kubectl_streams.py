"""kubectl logs, exec, drain and the like: what goes through to a kubelet, and what kubelets confirm."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from apiserver_harness import KUBECTLS, Lab, running

pytestmark = pytest.mark.clients

NEW = [k for k in ("1.31", "1.33") if k in KUBECTLS] or list(KUBECTLS)[-1:]
POD = """
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: NAME}, ownerReferences: OWNER}
spec: {nodeName: n1, containers: [{name: c, image: nginx}]}
"""
NODE = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}"


async def _logs(request: web.Request) -> web.Response:
    lines = [f"line {i}\n" for i in range(5)]
    return web.Response(text="".join(lines[-int(request.query.get("tailLines", "5")) :]))


async def _exec(request: web.Request) -> web.WebSocketResponse:
    """A shell that knows ``cat`` and ``fail``."""
    socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"))
    await socket.prepare(request)
    command = request.query.getall("command")
    await socket.send_bytes(b"\x01" + " ".join(command).encode() + b"\n")
    if command[0] == "cat":
        async for message in socket:
            if message.data[:1] == b"\xff":  # v5: a stream is closed
                break
            await socket.send_bytes(b"\x01" + message.data[1:])
    status: dict[str, object] = {"metadata": {}, "status": "Success"}
    if command[0] == "fail":
        await socket.send_bytes(b"\x02oops\n")
        causes = [{"reason": "ExitCode", "message": "7"}]
        status = {"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode"}
        status |= {"details": {"causes": causes}, "message": "command terminated with exit code 7"}
    await socket.send_bytes(b"\x03" + json.dumps(status).encode())
    await socket.close()
    return socket


def _kubelet(path: Path, ready: threading.Event, stop: threading.Event) -> None:
    async def serve() -> None:
        app = web.Application()
        app.router.add_get("/containerLogs/{ns}/{pod}/{container}", _logs)
        app.router.add_get("/exec/{ns}/{pod}/{container}", _exec)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        await web.UnixSite(runner, str(path)).start()
        ready.set()
        await asyncio.to_thread(stop.wait)
        await runner.cleanup()

    asyncio.run(serve())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running(Path(tmp_path_factory.mktemp("api")), "--no-controllers") as found:
        socket = found.folder / "nodes/n1/kubelet.sock"
        socket.parent.mkdir(parents=True)
        ready, stop = threading.Event(), threading.Event()
        thread = threading.Thread(target=_kubelet, args=(socket, ready, stop))
        thread.start()
        try:
            ready.wait(10)
            found.kubectl(NEW[0], "create", "-f-", stdin=NODE)
            found.kubectl(NEW[0], "create", "-f-", stdin=POD.replace("NAME", "p").replace("OWNER", "[]"))
            yield found
        finally:
            stop.set()
            thread.join(10)


@pytest.mark.parametrize("binary", KUBECTLS)
def test_logs(lab: Lab, binary: str) -> None:
    assert lab.kubectl(binary, "logs", "p", "--tail=2") == "line 3\nline 4\n"
    assert "is not valid for pod p" in lab.kubectl(binary, "logs", "p", "-c", "nope", ok=False)


@pytest.mark.parametrize("binary", NEW)
def test_exec_over_websocket(lab: Lab, binary: str) -> None:
    assert lab.kubectl(binary, "exec", "p", "--", "hello", "big world") == "hello big world\n"
    assert lab.kubectl(binary, "exec", "-i", "p", "--", "cat", stdin="some\ninput\n") == "cat\nsome\ninput\n"
    out = lab.kubectl(binary, "exec", "p", "--", "fail", ok=False)
    assert "oops" in out
    assert "exit code 7" in out


def test_exec_over_spdy_says_what_to_do_instead(lab: Lab) -> None:
    old = [k for k in KUBECTLS if k in ("1.20", "1.27", "1.29")]
    for binary in old:
        assert "towpath lab exec" in lab.kubectl(binary, "exec", "p", "--", "x", ok=False)


@pytest.mark.parametrize("binary", [*(["1.20"] if "1.20" in KUBECTLS else []), NEW[-1]])
def test_cordon_taint_drain(lab: Lab, binary: str) -> None:
    name = f"drained-{binary.replace('.', '-')}"
    owner = "[{apiVersion: apps/v1, kind: ReplicaSet, name: r, uid: u, controller: true}]"
    lab.kubectl(binary, "create", "-f-", stdin=POD.replace("NAME", name).replace("OWNER", owner))
    lab.kubectl(binary, "cordon", "n1")
    assert "SchedulingDisabled" in lab.kubectl(binary, "get", "node", "n1")
    lab.kubectl(binary, "taint", "node", "n1", "k=v:NoSchedule", "--overwrite")
    assert "k=v:NoSchedule" in lab.kubectl(binary, "describe", "node", "n1")
    drain = ("drain", "n1", "--pod-selector", f"app={name}", "--timeout=240s", "--force")
    process = lab.popen(binary, *drain)
    for _ in range(200):  # the kubelet's part: confirm that the pod has stopped
        if "Terminating" in lab.kubectl(NEW[-1], "get", "pod", name):
            break
    lab.kubectl(NEW[-1], "delete", "pod", name, "--grace-period=0", "--force")
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    lab.kubectl(binary, "uncordon", "n1")


def test_server_side_apply(lab: Lab) -> None:
    binary = NEW[-1]
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ssa}\ndata: {a: '1'}"
    lab.kubectl(binary, "apply", "--server-side", "-f-", stdin=text)
    lab.kubectl(binary, "patch", "cm", "ssa", "-p", '{"data":{"a":"2"}}')
    out = lab.kubectl(binary, "apply", "--server-side", "-f-", stdin=text, ok=False)
    assert 'conflict with "kubectl-patch": .data.a' in out
    lab.kubectl(binary, "apply", "--server-side", "--force-conflicts", "-f-", stdin=text)
    lab.kubectl(binary, "diff", "--server-side", "-f-", stdin=text)
    assert "manager: kubectl" in lab.kubectl(
        binary, "get", "cm", "ssa", "-o", "yaml", "--show-managed-fields"
    )


@pytest.mark.parametrize("binary", NEW)
def test_tokens_events_and_whoami(lab: Lab, binary: str) -> None:
    name = f"sa-{binary.replace('.', '-')}"
    lab.kubectl(binary, "create", "serviceaccount", name)
    token = lab.kubectl(binary, "create", "token", name).strip()
    assert f"system:serviceaccount:default:{name}" in lab.kubectl(
        binary, "auth", "whoami", f"--token={token}"
    )
    lab.kubectl(binary, "events")
    lab.kubectl(binary, "create", "role", name, "--verb=get", "--resource=pods")
    lab.kubectl(binary, "create", "rolebinding", name, f"--role={name}", f"--serviceaccount=default:{name}")
    lab.kubectl(binary, "get", "role,rolebinding", "-o", "wide")
    lab.kubectl(binary, "run", f"run-{name}", "--image=x", "--port=80", "--expose")
    lab.kubectl(binary, "create", "job", f"job-{name}", "--image=x")
    lab.kubectl(binary, "create", "deployment", f"zero-{name}", "--image=x", "--replicas=0")
    assert "0/0" in lab.kubectl(binary, "get", "deploy", f"zero-{name}")
    lab.kubectl(binary, "get", "all", "-o", "wide")
