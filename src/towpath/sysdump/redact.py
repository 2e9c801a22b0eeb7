"""Removes secrets from texts that leave the cluster. Pure.

Kubernetes Secrets are never read in the first place. What is looked for here is what people and programs
write into logs, annotations and configurations: keys, tokens, passwords, and whatever has the form of one.
"""

import re

REMOVED = "[removed]"
_NAMED = (
    r"[\w.-]*(?:password|passwd|passphrase|secret(?!s\b|name)|token|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|client-key-data|credential)[\w.-]*"
)
_PATTERNS = (
    # PEM, as a block or as one line with \\n written out.
    (r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^\"]*?(?:-----END [A-Z ]*PRIVATE KEY-----|(?=\")|\Z)", REMOVED),
    # JSON Web Tokens: service accounts' are of this kind.
    (r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?", REMOVED),
    (r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}", rf"\1 {REMOVED}"),
    # scheme://user:password@host
    (r"(\b[a-z][a-z0-9+.-]*://[^\s:/@\"]+):[^\s@/\"]+@", rf"\1:{REMOVED}@"),
    # "token": "x", also in a JSON text that is a value itself: \"token\": \"x\".
    (rf"(?i)({_NAMED}\\+\"[ \t]*:[ \t]*)(\\+\")(?:(?!\2|\").)*", rf"\1\2{REMOVED}"),
    (rf"(?i)({_NAMED}[\"']?[ \t]*[:=][ \t]*)([\"'])(?:\\.|(?!\2).)*", rf"\1\2{REMOVED}"),
    # password: x, SECRET=x
    (rf"(?i)({_NAMED}[ \t]*[:=][ \t]*)(?![\"'\[{{|>\\]|\s)[^\s,;&\"\\]+", rf"\1{REMOVED}"),
)
_COMPILED = tuple((re.compile(pattern), instead) for pattern, instead in _PATTERNS)


def redacted(text: str) -> str:
    """``text`` without what looks like a secret; lines, fields and their names stay, and JSON stays JSON."""
    for pattern, instead in _COMPILED:
        text = pattern.sub(instead, text)
    return text
