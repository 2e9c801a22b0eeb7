"""Names: RFC 1123 and 1035, qualified names, label values; messages are those of k8s.io/apimachinery."""

import re

LABEL_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
PATH_BAD = re.compile(r"[/%]")
CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")

_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must "
    "start and "
    "end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
    "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for "
    "validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_NAME_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used "
    "for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def _long(text: str, limit: int) -> list[str]:
    return [f"must be no more than {limit} characters"] if len(text) > limit else []


def subdomain(text: str) -> list[str]:
    """RFC 1123 subdomain: what most object names are."""
    return _long(text, 253) + ([] if SUBDOMAIN.fullmatch(text) else [_SUBDOMAIN_TEXT])


def label_1123(text: str) -> list[str]:
    """RFC 1123 label: namespaces, container and port names."""
    return _long(text, 63) + ([] if LABEL_1123.fullmatch(text) else [_LABEL_TEXT])


def label_1035(text: str) -> list[str]:
    """RFC 1035 label: Services."""
    return _long(text, 63) + ([] if LABEL_1035.fullmatch(text) else [_LABEL_1035_TEXT])


def path_segment(text: str) -> list[str]:
    """What RBAC names may be."""
    if text in (".", ".."):
        return [f"may not be '{text}'"]
    return [f"may not contain '{c}'" for c in "/%" if c in text]


def qualified_name(text: str) -> list[str]:
    """Label and annotation keys: an optional DNS prefix, a slash, a name."""
    prefix, slash, name = text.rpartition("/")
    problems = []
    if slash:
        problems = (
            ["prefix part must be non-empty"]
            if not prefix
            else [f"prefix part {p}" for p in subdomain(prefix)]
        )
    if not name:
        return [*problems, "name part must be non-empty"]
    problems += [f"name part {p}" for p in _long(name, 63)]
    return problems + ([] if QUALIFIED.fullmatch(name) else [_NAME_TEXT])


def label_value(text: str) -> list[str]:
    """Label values."""
    return _long(text, 63) + ([] if not text or QUALIFIED.fullmatch(text) else [_VALUE_TEXT])


def config_key(text: str) -> list[str]:
    """Keys of ConfigMaps and Secrets."""
    problems = _long(text, 253)
    if not CONFIG_KEY.fullmatch(text):
        problems.append(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. "
            "'key.name',  or "
            "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
        )
    if text in (".", ".."):
        problems.append(f"must not be '{text}'")
    return problems
