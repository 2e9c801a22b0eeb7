"""Defaults by type."""

from collections.abc import Callable

from towpath.lab.apiserver.errors import Obj

DEFAULTS: dict[str, Callable[[Obj], None]] = {}
