"""Says to others that an upgrade stands still or has ended: an Event on the DaemonSet, and a webhook."""

import asyncio
import uuid
from datetime import UTC, datetime

import aiohttp

from towpath.kube.client import Client
from towpath.kube.errors import KubeError
from towpath.kube.kinds import DAEMONSETS, EVENTS
from towpath.upgrade.journal import Mode
from towpath.upgrade.plan import Plan

_REASONS: dict[Mode, str] = {
    "paused": "UpgradePaused",
    "rolled-back": "UpgradeRolledBack",
    "aborted": "UpgradeAborted",
    "done": "Upgraded",
}
_COMPONENT = "towpath-upgrade"
_LONGEST, _WITHIN = 1024, 10.0


async def announce(client: Client, plan: Plan, mode: Mode, text: str, webhook: str) -> list[str]:
    """Returns what could not be said, and why: nothing of the upgrade depends on it."""
    wrong = []
    try:
        await _event(client, plan, mode, text)
    except KubeError as e:
        wrong.append(f"no Event: {e}")
    if webhook and mode != "done":
        try:
            await _post(webhook, plan, mode, text)
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as e:
            wrong.append(f"the webhook was not told: {type(e).__name__} {e}".rstrip())
    return wrong


async def _event(client: Client, plan: Plan, mode: Mode, text: str) -> None:
    raw = await client.get(DAEMONSETS, plan.daemonset, plan.namespace)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {"apiVersion": "apps/v1", "kind": "DaemonSet", "namespace": plan.namespace}
    about |= {"name": plan.daemonset, "uid": raw["metadata"]["uid"]}
    message = f"{plan.source} → {plan.target}: {mode}{f': {text}' if text else ''}"
    meta = {"name": f"{plan.daemonset}.{uuid.uuid4().hex[:16]}", "namespace": plan.namespace}
    event = {
        "metadata": meta,
        "involvedObject": about,
        "type": "Normal" if mode == "done" else "Warning",
        "reason": _REASONS.get(mode, "Upgrade"),
        "message": message[:_LONGEST],
        "source": {"component": _COMPONENT},
        "reportingComponent": _COMPONENT,
        "reportingInstance": _COMPONENT,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    await client.create(EVENTS, event, plan.namespace)


async def _post(webhook: str, plan: Plan, mode: Mode, text: str) -> None:
    """JSON, with ``text`` as chat programs want it. A redirect or an answer of 400 and above is an error."""
    name = f"{plan.namespace}/{plan.daemonset}"
    body = {
        "text": f"Upgrade of {name} to {plan.target}: {mode}{f': {text}' if text else ''}",
        "mode": mode,
        "why": text,
        "daemonset": name,
        "from": plan.source,
        "to": plan.target,
        "cluster": plan.cluster,
        "plan": plan.hash,
    }
    timeout = aiohttp.ClientTimeout(total=_WITHIN)
    async with (
        asyncio.timeout(_WITHIN),
        aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session,
        session.post(webhook, json=body, allow_redirects=False),
    ):
        pass
