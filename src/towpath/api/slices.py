"""EndpointSlices: which addresses and ports stand behind a Service.

``discovery.k8s.io/v1`` and ``v1beta1`` name and mean alike what is read here (they differ in where an
endpoint's node and zone stand), and so one struct reads both.
"""

import msgspec

from towpath.api.meta import ObjectMeta

SERVICE_NAME = "kubernetes.io/service-name"  # the label that says whose slice it is


class EndpointPort(msgspec.Struct, frozen=True, gc=False):
    """``discovery.k8s.io/v1.EndpointPort``. ``port`` None says nothing of ports."""

    name: str | None = None
    protocol: str | None = None
    port: int | None = None


class SliceEndpoint(msgspec.Struct, frozen=True, gc=False):
    """``discovery.k8s.io/v1.Endpoint``: its addresses, whether it is ready or not."""

    addresses: list[str] | None = None


class EndpointSlice(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """``discovery.k8s.io/v1.EndpointSlice``; ``address_type`` IPv4, IPv6 or FQDN."""

    metadata: ObjectMeta = ObjectMeta()
    address_type: str = ""
    endpoints: list[SliceEndpoint] | None = None
    ports: list[EndpointPort] | None = None
