"""Validators by type: the new object and the old one (None on creation) to causes."""

from collections.abc import Callable

from towpath.lab.apiserver.errors import Cause, Obj

VALIDATORS: dict[str, Callable[[Obj, Obj | None], list[Cause]]] = {}
