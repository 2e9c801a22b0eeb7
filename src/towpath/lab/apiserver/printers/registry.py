"""Which printer a resource has."""

from towpath.lab.apiserver.call import Server
from towpath.lab.apiserver.printers.cluster import CLUSTER
from towpath.lab.apiserver.printers.core import CORE
from towpath.lab.apiserver.printers.table import DEFAULT, Printer
from towpath.lab.apiserver.printers.workloads import WORKLOADS
from towpath.lab.apiserver.resources import Resource

_PRINTERS = {**CORE, **WORKLOADS, **CLUSTER}


def printer_of(server: Server, resource: Resource) -> Printer:
    """The builtin printer, the CRD's, or name and creation time."""
    custom = server.schemas.get((resource.group, resource.version, resource.plural))
    if custom is not None:
        return custom.printer
    return _PRINTERS.get(resource.type, DEFAULT)
