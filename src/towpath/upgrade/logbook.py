"""Where the journal is kept: a ConfigMap of the cluster itself, changed only by compare-and-swap."""

import asyncio
from collections.abc import Callable

import msgspec

from towpath.kube.client import Client
from towpath.kube.errors import AlreadyExists, Conflict, NotFound
from towpath.kube.kinds import CONFIG_MAPS, Raw
from towpath.upgrade import plan as plans
from towpath.upgrade.journal import ENDED, Journal, Record
from towpath.upgrade.plan import Plan, PlanError

NAME = "towpath-upgrade"
_TRIES = 20


class Unreadable(Exception):
    """What stands in the ConfigMap is not ours to go on from; the message says what to do."""


class Logbook:
    """The journal of the one upgrade that a cluster has. All methods raise ApiError."""

    def __init__(self, client: Client, namespace: str = "kube-system") -> None:
        self._client, self._namespace = client, namespace

    async def read(self) -> tuple[Plan, Journal] | None:
        """None: no upgrade was ever begun. Raises Unreadable."""
        try:
            raw = await self._client.get(CONFIG_MAPS, NAME, self._namespace)
        except NotFound:
            return None
        return self._parsed(raw)

    async def begin(self, plan: Plan) -> None:
        """For a new plan, after the one before has ended. Raises Unreadable while another is under way."""
        data = {"plan": plans.dump(plan).decode(), "journal": ""}
        meta = {"name": NAME, "namespace": self._namespace, "labels": {"app.kubernetes.io/name": "towpath"}}
        try:
            await self._client.create(CONFIG_MAPS, {"metadata": meta, "data": data}, self._namespace)
            return
        except AlreadyExists:
            raw = await self._client.get(CONFIG_MAPS, NAME, self._namespace)
        before, journal = self._parsed(raw)
        if before.hash == plan.hash and journal.mode not in ENDED:
            return
        if journal.mode not in ENDED:
            raise Unreadable(
                f"an upgrade to {before.target} is under way ({journal.mode}): "
                "towpath upgrade resume, rollback or abort ends it"
            )
        await self._client.update(CONFIG_MAPS, {**raw, "data": data})

    async def note(self, record: Record, after: Journal) -> None:
        """Add one to the journal as it was read; raises Conflict when somebody has written meanwhile."""
        raw = await self._client.get(CONFIG_MAPS, NAME, self._namespace)
        _, journal = self._parsed(raw)
        if journal != after:
            raise Conflict("append", f"configmaps/{NAME}", "somebody else has written meanwhile")
        data = {**raw["data"], "journal": (journal + record).text()}
        await self._client.update(CONFIG_MAPS, {**raw, "data": data})

    async def say(self, record: Record, refused: Callable[[Journal], str]) -> Journal:
        """Somebody's word, whatever the conductor writes meanwhile. ``refused``: why not, empty for yes.

        Raises Unreadable for what is refused, or when others change the journal without end.
        """
        for _ in range(_TRIES):
            raw = await self._client.get(CONFIG_MAPS, NAME, self._namespace)
            _, journal = self._parsed(raw)
            if why := refused(journal):
                raise Unreadable(why)
            longer = journal + record
            try:
                data = {**raw["data"], "journal": longer.text()}
                await self._client.update(CONFIG_MAPS, {**raw, "data": data})
                return longer
            except Conflict:
                await asyncio.sleep(0.05)
        raise Unreadable(f"ConfigMap {self._namespace}/{NAME} is changed by others all the time")

    def _parsed(self, raw: Raw) -> tuple[Plan, Journal]:
        data = raw.get("data") or {}
        try:
            return plans.load(data.get("plan", "").encode()), Journal.parse(data.get("journal", ""))
        except (PlanError, msgspec.DecodeError) as e:
            where = f"ConfigMap {self._namespace}/{NAME}"
            raise Unreadable(f"{where} cannot be read: {e} (keep a copy, then delete it)") from e
