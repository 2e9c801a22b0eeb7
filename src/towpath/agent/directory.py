"""Pods by name for ADD: from the reflector's cache, else by one GET."""

from collections.abc import Callable

from towpath.agent.attach_pods import PodLookupFailed
from towpath.api.core import Pod
from towpath.kube.client import Client
from towpath.kube.errors import KubeError, NotFound
from towpath.kube.kinds import PODS
from towpath.kube.reflector import Reflector

_ANSWER_WITHIN = 5.0  # the runtime waits for us, and asks again


class ApiPodDirectory:
    """``PodDirectory`` over the cache of pods. ``found`` hears of those that were not in it."""

    def __init__(self, client: Client, pods: Reflector[Pod], found: Callable[[Pod], None]) -> None:
        self._client, self._pods, self._found = client, pods, found

    async def find(self, namespace: str, name: str) -> Pod | None:
        """A cached pod that is being deleted may have a successor of the same name: that one is asked for.

        With the API server down, what is cached is good enough; what is not raises PodLookupFailed.
        """
        cached = self._pods.objects.get((namespace, name))
        if cached is not None and cached.metadata.deletion_timestamp is None:
            return cached
        try:
            pod = await self._client.get(PODS, name, namespace, timeout=_ANSWER_WITHIN)
        except NotFound:
            return None
        except KubeError as e:
            if cached is not None:
                return cached
            raise PodLookupFailed(str(e)) from e
        self._found(pod)
        return pod
