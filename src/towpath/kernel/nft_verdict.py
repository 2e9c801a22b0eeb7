"""A verdict, in a map or in a rule, as the kernel's attributes."""

from struct import Struct

from towpath.kernel.nft_text import name as checked
from towpath.kernel.nft_types import NotPlain
from towpath.kernel.wire import attr, attributes, string, text

_CODE, _CHAIN = 1, 2
_CODES = {"drop": 0, "accept": 1, "continue": -1, "jump": -3, "goto": -4, "return": -5}
_WORDS = {code: word for word, code in _CODES.items()}
_INT = Struct(">i")


def verdict(words: object) -> bytes:
    """``"return"``, ``"goto CHAIN"``. Raises NotPlain; ValueError for a name that cannot be one."""
    if not isinstance(words, str):
        raise NotPlain
    action, _, chain = words.partition(" ")
    if action not in _CODES or bool(chain) != (action in ("jump", "goto")):
        raise NotPlain
    code = attr(_CODE, _INT.pack(_CODES[action]))
    return code + (text(_CHAIN, checked(chain)) if chain else b"")


def verdict_words(payload: bytes) -> str:
    """The words for what was listed."""
    found = attributes(payload)
    code = int.from_bytes(found.get(_CODE, b""), "big", signed=True)
    word = _WORDS.get(code, f"verdict {code}")
    return f"{word} {string(found[_CHAIN])}" if _CHAIN in found else word
