"""Whether this machine's clock is that of the API server: windows, leases and the journal go by it."""

import time
from calendar import timegm

import msgspec

from towpath.kube.client import Client
from towpath.kube.kinds import CONFIG_MAPS

LIMIT = 10.0  # seconds; the conductor's lease lasts twenty
_NAME = "towpath-clock"


async def skew(client: Client, namespace: str = "kube-system") -> float:
    """Seconds by which this clock is ahead, negative when behind; 0 for what is within a second.

    By the time that the server would give to a new object: a dry run, nothing is made. Raises ApiError.
    """
    body = msgspec.json.encode({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": _NAME}})
    before = time.time()
    answer = await client.request(
        "POST",
        CONFIG_MAPS.path(namespace),
        query={"dryRun": "All"},
        body=body,
        operation="create (dry run)",
    )
    return difference(before, time.time(), msgspec.json.decode(answer)["metadata"]["creationTimestamp"])


def difference(before: float, after: float, stamped: str) -> float:
    """``stamped``: the server's whole second between the two. Pure; ValueError for what is no time."""
    second = timegm(time.strptime(stamped, "%Y-%m-%dT%H:%M:%SZ"))
    if before > second + 1:
        return before - second - 1
    return min(0.0, after - second)
