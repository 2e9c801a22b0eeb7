"""Published ports as map elements (the portMappings capability)."""

from collections.abc import Iterable

from towpath.model.attachment import Attachment, PortMapping
from towpath.model.net import Addr
from towpath.model.nft import Key


def hostport_elements(att: Attachment) -> dict[str, dict[Key, Key]]:
    """Elements of ``hostport4/6`` (every local address) and ``hostport_ip4/6`` (one address).

    A mapping without host address serves every family the pod has; ``0.0.0.0`` or ``::`` only its own. A
    host address of a family the pod lacks serves nothing, as portmap does it.
    """
    elements: dict[str, dict[Key, Key]] = {}
    for mapping in att.ports:
        for addr in att.addresses:
            name, key = _key(mapping, addr)
            if name:
                elements.setdefault(name, {})[key] = (addr, mapping.container_port)
    return elements


def conflicts(attachments: Iterable[Attachment]) -> list[tuple[Attachment, Attachment, Key]]:
    """Pairs (holder, loser, key) of attachments that publish one and the same port, in the order given."""
    holders: dict[tuple[str, Key], Attachment] = {}
    found: list[tuple[Attachment, Attachment, Key]] = []
    for att in attachments:
        for name, members in hostport_elements(att).items():
            for key in members:
                holder = holders.setdefault((name, key), att)
                if holder is not att:
                    found.append((holder, att, key))
    return found


def _key(mapping: PortMapping, addr: Addr) -> tuple[str, Key]:
    port: Key = (mapping.protocol, mapping.host_port)
    host_ip = mapping.host_ip
    if host_ip is not None and host_ip.version != addr.version:
        return "", ()
    if host_ip is None or host_ip.is_unspecified:
        return f"hostport{addr.version}", port
    return f"hostport_ip{addr.version}", (host_ip, *port)
