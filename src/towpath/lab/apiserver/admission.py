"""Admission: what upstream's plugins and strategies change or refuse, by type."""

from collections.abc import Callable

from towpath.lab.apiserver.call import Call, Server
from towpath.lab.apiserver.errors import Obj

Admit = Callable[[Server, Call, Obj, Obj | None], None]
ADMIT: dict[str, Admit] = {}
