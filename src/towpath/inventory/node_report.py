"""What was found on one node by the pod that was sent there: what the API cannot tell. Values only.

``towpath.node_reader`` fills it in on the node, ``preflight`` judges it, ``backup`` keeps it.
"""

import msgspec

SCHEMA = 1
UNSEEN = "?"  # the target of a rule that could not be read


class Listener(msgspec.Struct, frozen=True, order=True):
    """Somebody listens. ``protocol`` tcp or udp, ``program`` empty where it cannot be told."""

    protocol: str
    port: int
    program: str = ""


class Postrouting(msgspec.Struct, frozen=True, kw_only=True):
    """What translates the sources of packets, in one family and one place.

    ``place``: iptables-nft, iptables-legacy, flannel (a table of nftables' own) or towpath. ``hooks``: how
    often the hook chain leads to it. ``rules`` in order: target, and the whole rule. ``behind``: targets
    that the hook chain has before it.
    """

    place: str
    family: int
    hooks: int
    rules: tuple[tuple[str, str], ...]
    behind: tuple[str, ...] = ()


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """One back end in one family: ``canal`` are Felix's and flannel's, ``proxy`` kube-proxy's.

    ``closed``: why FORWARD lets nothing pass by itself, empty if it does.
    """

    backend: str
    family: int
    total: int
    canal: int
    proxy: int
    closed: str = ""


class Tunnel(msgspec.Struct, frozen=True, kw_only=True):
    """flannel's device. ``fdb`` remote end to MAC, ``neighbours`` address inside to MAC."""

    name: str
    mac: str
    mtu: int
    vni: int
    port: int
    local: str
    underlay_mtu: int
    fdb: dict[str, str] = {}
    neighbours: dict[str, str] = {}


class Leases(msgspec.Struct, frozen=True, kw_only=True):
    """host-local's files of a network, and those that no interface stands behind."""

    network: str
    total: int
    leaked: tuple[str, ...] = ()


class Churn(msgspec.Struct, frozen=True, kw_only=True):
    """Rules looked at again and again for ``seconds``: chain to how often its rules were other ones.

    A chain is named ``ip nat FLANNEL-POSTRTG``. What is written anew with the same text counts too.
    """

    seconds: float
    samples: int
    changed: dict[str, int] = {}


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel counted for ``seconds``: TCP segments sent and ``resent`` by the node and its pods;

    packets ``dropped`` by devices and by conntrack; bytes through the tunnels, in and out.
    """

    seconds: float
    segments: int
    resent: int
    dropped: int
    tunnel_bytes: int


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """State that only a backup wants: texts as the programs print them, empty where there is none."""

    nft: str = ""
    legacy: dict[str, str] = {}
    routes: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    fdb: tuple[str, ...] = ()
    leases: dict[str, dict[str, str]] = {}
    conflists: dict[str, str] = {}


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """``problems``: what could not be read, and why; what depends on it cannot be told.

    ``modules``: name to loaded, builtin, available or missing. ``programs``: ``iptables`` to what it says
    of its version, where it was found first (on the host, or in the network's own container).
    ``services``: those that run, of firewalld, NetworkManager and nm-cloud-setup. ``unmanaged``: what
    NetworkManager is told to leave alone. ``files`` (``/opt/cni/bin/calico``) to SHA-256; ``image_files``:
    the same of the programs that the network's running containers hold, by name; ``config``: the CNI
    configuration in force; ``canal_config``: Canal's, which may be behind Multus'. ``free_mb``: folder to
    MiB left.
    """

    schema: int = SCHEMA
    taken: str
    kernel: str
    os: dict[str, str] = {}
    modules: dict[str, str] = {}
    programs: dict[str, str] = {}
    rules: tuple[Rules, ...] = ()
    postrouting: tuple[Postrouting, ...] = ()
    listeners: tuple[Listener, ...] = ()
    services: tuple[str, ...] = ()
    unmanaged: tuple[str, ...] = ()
    sysctls: dict[str, str] = {}
    tunnels: tuple[Tunnel, ...] = ()
    leases: tuple[Leases, ...] = ()
    files: dict[str, str] = {}
    image_files: dict[str, str] = {}
    config: str = ""
    config_text: str = ""
    canal_config: str = ""
    free_mb: dict[str, int] = {}
    churn: Churn | None = None
    flow: Flow | None = None
    problems: tuple[str, ...] = ()
    kept: Kept | None = None

    def tunnel(self, name: str) -> Tunnel | None:
        """By name."""
        return next((one for one in self.tunnels if one.name == name), None)
