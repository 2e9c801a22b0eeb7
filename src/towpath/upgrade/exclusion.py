"""Two conductors exclude each other: a Lease of ``coordination.k8s.io`` says who conducts.

A holder that does not renew for ``SECONDS`` is taken to be dead: by this machine's clock and, as the other's
may differ, by looking whether it renews meanwhile. Even if it lives and goes on: the journal is changed by
compare-and-swap, and every action may be done twice.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from towpath.kube.client import Client
from towpath.kube.errors import AlreadyExists, Conflict, KubeError, NotFound
from towpath.kube.kinds import LEASES, Raw

NAME, SECONDS, RENEW_EVERY = "towpath-upgrade", 20, 5.0
_NO_SKEW = 3600.0  # clocks of one cluster do not differ by that: tokens would not work
_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"


class Held(Exception):
    """Another conducts; the message says who."""


@contextlib.asynccontextmanager
async def alone(client: Client, identity: str, namespace: str = "kube-system") -> AsyncIterator[None]:
    """Hold the lease, renewing it. Raises Held and ApiError."""
    await _take(client, identity, namespace)
    renewing = asyncio.create_task(_renew(client, identity, namespace))
    try:
        yield
    finally:
        renewing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await renewing
        with contextlib.suppress(KubeError):
            await _release(client, identity, namespace)


async def _take(client: Client, identity: str, namespace: str) -> None:
    spec = _spec(identity)
    meta = {"name": NAME, "namespace": namespace}
    try:
        await client.create(LEASES, {"metadata": meta, "spec": spec}, namespace)
        return
    except AlreadyExists:
        raw = await client.get(LEASES, NAME, namespace)
    holder = (raw.get("spec") or {}).get("holderIdentity") or ""
    if holder not in ("", identity) and await _lives(client, raw, namespace):
        raise Held(f"{holder} conducts it (Lease {namespace}/{NAME}); wait, or end that process")
    try:
        await client.update(LEASES, {**raw, "spec": spec})
    except Conflict as e:
        raise Held(f"another has begun at the same moment (Lease {namespace}/{NAME})") from e


async def _renew(client: Client, identity: str, namespace: str) -> None:
    while True:
        await asyncio.sleep(RENEW_EVERY)
        with contextlib.suppress(KubeError):  # the next time, or not: then another may take over
            await client.patch(LEASES, NAME, {"spec": _spec(identity)}, namespace)


async def _release(client: Client, identity: str, namespace: str) -> None:
    try:
        raw = await client.get(LEASES, NAME, namespace)
    except NotFound:
        return
    if (raw.get("spec") or {}).get("holderIdentity") == identity:
        await client.update(LEASES, {**raw, "spec": {**raw["spec"], "holderIdentity": ""}})


def _spec(identity: str) -> Raw:
    now = datetime.now(UTC).strftime(_FORMAT)
    return {"holderIdentity": identity, "leaseDurationSeconds": SECONDS, "renewTime": now}


async def _lives(client: Client, raw: Raw, namespace: str) -> bool:
    """Whether the holder renews it: by the time that stands there; where clocks may differ, by looking."""
    renewed = _renewed(raw)
    if renewed is None:
        return False
    age = (datetime.now(UTC) - renewed).total_seconds()
    if -SECONDS <= age <= SECONDS:
        return True
    if age > _NO_SKEW:
        return False
    await asyncio.sleep(RENEW_EVERY * 1.5)
    now = await client.get(LEASES, NAME, namespace)
    return _renewed(now) != renewed


def _renewed(raw: Raw) -> datetime | None:
    try:
        return datetime.strptime((raw.get("spec") or {}).get("renewTime") or "", _FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
