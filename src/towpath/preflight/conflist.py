"""Canal's CNI configuration on a node against the template that it was made of. Pure.

install-cni puts values in the place of ``__NAME__`` in the ConfigMap's ``cni_network_config``, and writes
what comes of it when its pod starts (projectcalico/calico, cni-plugin/pkg/install): whatever else differs is
of another version of the ConfigMap, or somebody's.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

_PLACE = re.compile(r"__[A-Z0-9_]+__")
_BARE = re.compile(r"(:\s*)(__[A-Z0-9_]+__)")  # a number's place, without quotation marks


def differences(template: str, installed: str) -> list[str]:
    """In words, each with where it is. Raises ValueError for what is not JSON."""
    return list(_compare(json.loads(_BARE.sub(r'\1"\2"', template)), json.loads(installed), ""))


def _compare(wanted: Any, found: Any, at: str) -> Iterator[str]:
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in sorted(wanted.keys() | found.keys()):
            where = f"{at}.{key}".lstrip(".")
            if key not in found:
                yield f"{where} is missing"
            elif key not in wanted:
                yield f"{where} is not in the ConfigMap"
            else:
                yield from _compare(wanted[key], found[key], where)
    elif isinstance(wanted, list) and isinstance(found, list):
        if len(wanted) != len(found):
            yield f"{at} has {len(found)} entries, in the ConfigMap {len(wanted)}"
            return
        for index, pair in enumerate(zip(wanted, found, strict=True)):
            yield from _compare(*pair, f"{at}[{index}]")
    elif not _fits(wanted, found):
        yield f"{at} is {found!r}, in the ConfigMap {wanted!r}"


def _fits(wanted: Any, found: Any) -> bool:
    if not isinstance(wanted, str) or not _PLACE.search(wanted):
        return bool(wanted == found)
    pattern = ".*".join(map(re.escape, _PLACE.split(wanted)))
    return re.fullmatch(pattern, str(found), re.DOTALL) is not None
