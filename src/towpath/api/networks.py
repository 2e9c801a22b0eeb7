"""``k8s.cni.cncf.io/v1`` NetworkAttachmentDefinition, as far as it is read."""

import msgspec

from towpath.api.meta import ObjectMeta

RESOURCE_NAME = "k8s.v1.cni.cncf.io/resourceName"


class NetworkSpec(msgspec.Struct, frozen=True, gc=False):
    """``config`` is the JSON of a CNI configuration or list; empty: one of that name lies on the nodes."""

    config: str = ""


class NetworkAttachmentDefinition(msgspec.Struct, frozen=True, gc=False):
    """A network that pods can ask for."""

    metadata: ObjectMeta = ObjectMeta()
    spec: NetworkSpec = NetworkSpec()
