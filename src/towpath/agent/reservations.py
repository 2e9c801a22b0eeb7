"""IPReservations (Calico's kind): addresses that are given out to those alone who ask for them by name."""

import asyncio
import contextlib
from ipaddress import ip_network
from typing import Any

from towpath.kube.client import Client
from towpath.kube.codec import Key
from towpath.kube.discovery import resources
from towpath.kube.errors import Forbidden, KubeError
from towpath.kube.kinds import IP_RESERVATIONS, Raw
from towpath.kube.reflector import Reflector, Selection
from towpath.log import get_logger
from towpath.model.finding import Finding
from towpath.model.net import Net

log = get_logger("towpath.ipam")

_ASK_AGAIN = 30.0
_ASK_AGAIN_SOON = 1.0


class Reservations:
    """Followed from when the API server has the kind, and as long as it does.

    Fails closed: until it is known whether there are any, ``problem`` says so, and the node takes no pods.
    """

    def __init__(self, client: Client, silence: float) -> None:
        self._client, self._silence = client, silence
        self._following: tuple[Reflector[Raw], asyncio.Task[None]] | None = None
        self._known = "whether addresses are reserved is not known yet"
        self._nets: tuple[Net, ...] = ()
        self._findings: list[Finding] = []

    async def run(self) -> None:
        """Follow for ever."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                wait = _ASK_AGAIN
                try:
                    place = (IP_RESERVATIONS.group, IP_RESERVATIONS.version)
                    found = await resources(self._client, {place})
                    self._follow(tasks, served=IP_RESERVATIONS.plural in found.get(place, ()))
                except KubeError as error:
                    wait = _ASK_AGAIN_SOON if self._known else _ASK_AGAIN
                    log.debug("reservations_not_asked", error=str(error))
                await asyncio.sleep(wait)

    def _follow(self, tasks: asyncio.TaskGroup, *, served: bool) -> None:
        if served and self._following is None:
            reflector = Reflector(
                self._client, Selection(kind=IP_RESERVATIONS), self._changed, silence=self._silence
            )
            self._following = reflector, tasks.create_task(reflector.run())
        elif not served:
            self._known = ""
            if self._following is not None:
                self._following[1].cancel()
                self._following, self._nets, self._findings = None, (), []

    def _changed(self, key: Key | None) -> None:
        if self._following is None:
            return
        self._nets, self._findings = read(self._following[0].objects)
        if key is None:
            self._known = ""

    def problem(self) -> str:
        """Why it is not known yet what is reserved; empty from then on.

        An agent that may not read them (its rights are of an older release) takes pods all the same.
        """
        if self._forbidden() is not None:
            return ""
        return self._known

    def _forbidden(self) -> Forbidden | None:
        problem = self._following[0].problem if self._following is not None else None
        return problem if isinstance(problem, Forbidden) else None

    def nets(self) -> tuple[Net, ...]:
        """What is reserved."""
        return self._nets

    def findings(self) -> list[Finding]:
        """What cannot be read."""
        if (refused := self._forbidden()) is None:
            return self._findings
        fix = "apply the manifest of the agent's own release (towpath install render)"
        return [Finding(code="TP4019", object=IP_RESERVATIONS.plural, message=str(refused), fix=fix)]


def read(objects: Any) -> tuple[tuple[Net, ...], list[Finding]]:
    """The CIDRs of all IPReservations by key, and what is wrong with them. One bad CIDR spoils no other."""
    nets: list[Net] = []
    findings = []
    for (_, name), raw in sorted(objects.items()):
        spec = raw.get("spec")
        cidrs = spec.get("reservedCIDRs") if isinstance(spec, dict) else None
        for text in cidrs if isinstance(cidrs, list) else ([] if cidrs is None else [cidrs]):
            net = None
            with contextlib.suppress(ValueError):
                net = ip_network(text, strict=False) if isinstance(text, str) else None
            if net is not None:
                nets.append(net)
                continue
            message = f"spec.reservedCIDRs: {text!r} is no address and no CIDR; it reserves nothing"
            fix = f"kubectl edit ipreservations.{IP_RESERVATIONS.group} {name}"
            findings.append(Finding(code="TP4019", object=f"IPReservation/{name}", message=message, fix=fix))
    return tuple(dict.fromkeys(nets)), findings
