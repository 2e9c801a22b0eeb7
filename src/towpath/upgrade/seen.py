"""What a conductor sees of the cluster, as values."""

from typing import Any, Literal, NamedTuple

Direction = Literal["takeover", "handback"]


class ChartSeen(NamedTuple):
    """The HelmChart that the DaemonSet is of. ``version`` empty: it cannot be read."""

    frozen: bool
    version: str


class SeenPod(NamedTuple):
    """The DaemonSet's pod on a node. ``images``: container to image, of its spec; ``why`` it is not ready."""

    name: str
    uid: str
    images: dict[str, str]
    ready: bool
    why: str = ""


class SeenMove(NamedTuple):
    """The pod that moves a node from one network to another. ``phase`` as of the pod; ``why`` it failed."""

    name: str
    direction: Direction
    phase: str
    why: str = ""


class SeenNetworks(NamedTuple):
    """Where a cluster goes from one network to another: each node's label, its pods of both, who moves it."""

    labels: dict[str, str]
    canal: dict[str, SeenPod]
    towpath: dict[str, SeenPod]
    moves: dict[str, SeenMove]


class Seen(NamedTuple):
    """The DaemonSet and its pods by node; ``nodes`` are those that there are, ``at`` is when (since 1970).

    ``template``: what all of the DaemonSet's template but the plan's images comes to, as a hash.
    """

    strategy: dict[str, Any]
    images: dict[str, str]
    pods: dict[str, SeenPod]
    nodes: frozenset[str]
    cordoned: frozenset[str] = frozenset()
    chart: ChartSeen | None = None
    at: float = 0.0
    networks: SeenNetworks | None = None
    template: str = ""
