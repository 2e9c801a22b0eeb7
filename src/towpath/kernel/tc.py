"""Traffic control: token buckets and redirection to an ifb, as rtnetlink messages and back."""

from collections.abc import Iterable, Mapping
from errno import EINVAL, ENODEV, ENOENT
from struct import Struct

from towpath.kernel.netlink import NLM_F_CREATE, NLM_F_REPLACE, Message, NetlinkSocket
from towpath.kernel.port import KernelRefused
from towpath.kernel.wire import attr, attributes, listed, string, text, u32
from towpath.model.net import Redirect, Shaper

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46
_ROOT, _INGRESS, _INGRESS_HANDLE, _TBF_HANDLE = 0xFFFFFFFF, 0xFFFFFFF1, 0xFFFF0000, 0x00010000
_KIND, _OPTIONS = 1, 2
_TBF_PARMS, _TBF_RATE64, _TBF_BURST = 1, 4, 6
_U32_CLASSID, _U32_SEL, _U32_ACT = 1, 5, 7
_ACT_KIND, _ACT_OPTIONS, _MIRRED_PARMS = 1, 2, 2
_ETHERNET, _TERMINAL, _STOLEN, _EGRESS_REDIRECT = 1, 1, 4, 1
# Filter 800::800 of priority 1 for ETH_P_ALL (network order in the lower half of tcm_info).
_FILTER_HANDLE, _FILTER_INFO = 0x80000800, 0x00010300

_TCMSG = Struct("=BBHiIII")
_RATE = Struct("=BBHhHI")
_TBF = Struct("=12s12sIII")
_SEL = Struct("=BBBxHHhhI")
_KEY = Struct("=IIii")
_MIRRED = Struct("=IIiiiiI")
_U64 = Struct("=Q")
_TICK_NS = 64
_PUT = NLM_F_CREATE | NLM_F_REPLACE
_GONE = frozenset({ENODEV, ENOENT, EINVAL})  # EINVAL: "Cannot find specified qdisc on specified device"

_DUMP_QDISCS = _TCMSG.pack(0, 0, 0, 0, 0, 0, 0)


def encode_shaper(item: Shaper, index: int, *, remove: bool = False) -> list[Message]:
    """Replace, or delete, the root queueing discipline. The kernel counts in whole bytes."""
    head = _TCMSG.pack(0, 0, 0, index, 0 if remove else _TBF_HANDLE, _ROOT, 0)
    if remove:
        return [Message(RTM_DELQDISC, 0, head, _GONE)]
    rate, burst = item.rate // 8, item.burst // 8
    limit = min(rate * item.latency // 1000 + burst, 0xFFFFFFFF)
    spec = _RATE.pack(0, _ETHERNET, 0, 0, 0, min(rate, 0xFFFFFFFF))
    options = attr(_TBF_PARMS, _TBF.pack(spec, bytes(12), limit, 0, 0)) + u32(_TBF_BURST, burst)
    if rate > 0xFFFFFFFF:
        options += attr(_TBF_RATE64, _U64.pack(rate))
    return [Message(RTM_NEWQDISC, _PUT, head + text(_KIND, "tbf") + attr(_OPTIONS, options))]


def encode_redirect(item: Redirect, index: int, ifb: int, *, remove: bool = False) -> list[Message]:
    """An ingress qdisc, and a filter that sends everything out of device ``ifb``; or delete both.

    u32 rather than matchall: it is what every kernel has.
    """
    ingress = _TCMSG.pack(0, 0, 0, index, _INGRESS_HANDLE, _INGRESS, 0)
    if remove:
        return [Message(RTM_DELQDISC, 0, ingress, _GONE)]
    mirred = _MIRRED.pack(0, 0, _STOLEN, 0, 0, _EGRESS_REDIRECT, ifb)
    action = text(_ACT_KIND, "mirred") + attr(_ACT_OPTIONS, attr(_MIRRED_PARMS, mirred))
    match_all = _SEL.pack(_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + _KEY.pack(0, 0, 0, 0)
    options = u32(_U32_CLASSID, 0x00010001) + attr(_U32_SEL, match_all) + attr(_U32_ACT, attr(1, action))
    head = _TCMSG.pack(0, 0, 0, index, _FILTER_HANDLE, _INGRESS_HANDLE, _FILTER_INFO)
    return [
        Message(RTM_NEWQDISC, NLM_F_CREATE, ingress + text(_KIND, "ingress")),
        Message(RTM_NEWTFILTER, _PUT, head + text(_KIND, "u32") + attr(_OPTIONS, options)),
    ]


def observe(sock: NetlinkSocket, names: Mapping[int, str]) -> tuple[frozenset[Shaper], frozenset[Redirect]]:
    """All token buckets at a root and all redirections of the namespace."""
    shapers: set[Shaper] = set()
    redirects: set[Redirect] = set()
    for payload in sock.dump(RTM_GETQDISC, _DUMP_QDISCS):
        _, _, _, index, _, parent, _ = _TCMSG.unpack_from(payload)
        dev = names.get(index)
        if dev is None:
            continue
        found = attributes(payload, 20)
        kind = string(found.get(_KIND, b""))
        if kind == "tbf" and parent == _ROOT:
            shapers.add(_shaper(dev, attributes(found.get(_OPTIONS, b""))))
        elif kind == "ingress":
            redirects.update(_redirects(sock, index, dev, names))
    return frozenset(shapers), frozenset(redirects)


def _shaper(dev: str, options: dict[int, bytes]) -> Shaper:
    """The kernel tells the burst as time in 64 ns ticks and the limit in bytes.

    The limit is rate times latency, and the burst on top. With the burst known to within a tick, one whole
    number of milliseconds fits as latency, and that gives the burst to the byte.
    """
    spec, _, limit, ticks, _ = _TBF.unpack_from(options[_TBF_PARMS])
    rate = _RATE.unpack(spec)[5]
    if _TBF_RATE64 in options:
        rate = _U64.unpack(options[_TBF_RATE64])[0]
    roughly = ticks * _TICK_NS * rate // 1_000_000_000
    latency = max(0, round((limit - roughly) * 1000 / rate)) if rate else 0
    return Shaper(dev=dev, rate=rate * 8, burst=(limit - rate * latency // 1000) * 8, latency=latency)


def _redirects(sock: NetlinkSocket, index: int, dev: str, names: Mapping[int, str]) -> Iterable[Redirect]:
    try:
        filters = sock.dump(RTM_GETTFILTER, _TCMSG.pack(0, 0, 0, index, 0, _INGRESS_HANDLE, 0))
    except KernelRefused as error:
        if error.errno not in _GONE:
            raise
        return  # the device, or its qdisc, went while we listed
    for payload in filters:
        found = attributes(payload, 20)
        if string(found.get(_KIND, b"")) != "u32":
            continue
        actions = attributes(found.get(_OPTIONS, b"")).get(_U32_ACT, b"")
        for _, action in listed(actions):
            told = attributes(action)
            if string(told.get(_ACT_KIND, b"")) != "mirred":
                continue
            parms = attributes(told.get(_ACT_OPTIONS, b"")).get(_MIRRED_PARMS)
            ifb = names.get(_MIRRED.unpack_from(parms)[6]) if parms is not None else None
            if ifb is not None:
                yield Redirect(dev=dev, ifb=ifb)
