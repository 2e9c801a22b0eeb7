"""Kubernetes quantities (``100m``, ``1Gi``) as numbers."""

_SUFFIXES = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60,
}  # fmt: skip


def parse_quantity(value: str | int | float) -> float:
    """The amount in base units; raises ValueError for what is no quantity."""
    if not isinstance(value, str):
        return float(value)
    text = value.strip()
    number = text.rstrip("numkMGTPEi")
    suffix = text[len(number) :]
    if suffix not in _SUFFIXES or not number:
        raise ValueError(f"not a quantity: {value!r}")
    return float(number) * _SUFFIXES[suffix]
