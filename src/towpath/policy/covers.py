"""Whether one rule matches all that another does, as far as it can be told without endpoints.

True is proof; False may only mean that it is not obvious.
"""

from towpath.model.net import Net
from towpath.policy.ir import Peer, Ports, Rule
from towpath.policy.selector import All, And, Has, In, Not, Or, Selector, Text


def selector_covers(wide: Selector, narrow: Selector) -> bool:
    """Whether ``wide`` selects everything that ``narrow`` does."""
    if isinstance(wide, All) or wide == narrow:
        return True
    if isinstance(narrow, Or):
        return all(selector_covers(wide, operand) for operand in narrow.operands)
    if isinstance(wide, And):
        return all(selector_covers(operand, narrow) for operand in wide.operands)
    if isinstance(wide, Or) and any(selector_covers(operand, narrow) for operand in wide.operands):
        return True
    if isinstance(narrow, And):
        return any(selector_covers(wide, operand) for operand in narrow.operands)
    match wide, narrow:
        case Has(key), In(other, _) | Text(other, _, _):
            return key == other
        case In(key, values), In(other, others):
            return key == other and set(others) <= set(values)
        case Not(operand), Not(other_operand):
            return selector_covers(other_operand, operand)
        case Not(In(key, values)), In(other, others):
            return key == other and not set(others) & set(values)
        case _:
            return False


def rule_covers(wide: Rule, narrow: Rule) -> bool:
    """Whether ``wide`` matches every flow that ``narrow`` matches; whatever their actions are."""
    return (
        wide.family in (None, narrow.family)
        and wide.protocol in (None, narrow.protocol)
        and (
            wide.not_protocol in (None, narrow.not_protocol)
            or narrow.protocol not in (None, wide.not_protocol)
        )
        and wide.icmp in (None, narrow.icmp)
        and wide.not_icmp in (None, narrow.not_icmp)
        and _peer_covers(wide.source, narrow.source)
        and _peer_covers(wide.destination, narrow.destination)
        and _ports_cover(wide.source_ports, narrow.source_ports)
        and _ports_cover(wide.destination_ports, narrow.destination_ports)
        and _leaves_out_no_more(wide.not_source_ports, narrow.not_source_ports)
        and _leaves_out_no_more(wide.not_destination_ports, narrow.not_destination_ports)
    )


def _peer_covers(wide: Peer, narrow: Peer) -> bool:
    if wide.service is not None or narrow.service is not None:
        return False  # what an unresolved service means depends on the action
    if wide.selector is not None and (
        narrow.selector is None or not selector_covers(wide.selector, narrow.selector)
    ):
        return False
    if wide.not_selector is not None and (
        narrow.not_selector is None or not selector_covers(narrow.not_selector, wide.not_selector)
    ):
        return False
    if wide.nets is not None and (
        narrow.nets is None or not all(_within(net, wide.nets) for net in narrow.nets)
    ):
        return False
    return all(_within(net, narrow.not_nets) for net in wide.not_nets)


def _within(net: Net, nets: tuple[Net, ...]) -> bool:
    return any(
        net.version == other.version and other.prefixlen <= net.prefixlen and net.network_address in other
        for other in nets
    )


def _ports_cover(wide: Ports | None, narrow: Ports | None) -> bool:
    return wide is None or (narrow is not None and _all_in(narrow, wide))


def _leaves_out_no_more(wide: Ports | None, narrow: Ports | None) -> bool:
    return wide is None or (narrow is not None and _all_in(wide, narrow))


def _all_in(ports: Ports, others: Ports) -> bool:
    return set(ports.names) <= set(others.names) and all(
        any(low <= first and last <= high for low, high in others.ranges) for first, last in ports.ranges
    )
