"""Swagger 2.0 as protobuf (gnostic's ``openapi.v2.Document``), which kubectl asks for.

Field numbers are those of google/gnostic's OpenAPIv2.proto; only what ``openapi.v2_document`` uses is here.
"""

import json
from typing import Any

from towpath.lab.apiserver.errors import Obj


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode()) if text else b""


def _extensions(field: int, obj: Obj) -> bytes:
    """NamedAny{name, Any{yaml}}; JSON is YAML."""
    return b"".join(
        _bytes(field, _text(1, k) + _bytes(2, _text(2, json.dumps(v) + "\n")))
        for k, v in obj.items()
        if k.startswith("x-")
    )


def _schema(s: Obj) -> bytes:
    out = _text(1, s.get("$ref", "")) + _text(2, s.get("format", "")) + _text(4, s.get("description", ""))
    out += b"".join(_text(19, name) for name in s.get("required", ()))
    extra: Any = s.get("additionalProperties")
    if extra is not None:
        out += _bytes(
            21,
            _varint(2 << 3) + _varint(int(extra)) if isinstance(extra, bool) else _bytes(1, _schema(extra)),
        )
    if "type" in s:
        out += _bytes(22, _text(1, s["type"]))
    if "items" in s:
        out += _bytes(23, _bytes(1, _schema(s["items"])))
    if "properties" in s:
        out += _bytes(25, b"".join(_named_schema(k, v) for k, v in s["properties"].items()))
    return out + _extensions(31, s)


def _named_schema(name: str, schema: Obj) -> bytes:
    return _bytes(1, _text(1, name) + _bytes(2, _schema(schema)))


def _operation(op: Obj) -> bytes:
    parameters = b"".join(
        _bytes(
            8, _bytes(1, _bytes(2, _bytes(3, _text(2, p["in"]) + _text(4, p["name"]) + _text(6, p["type"]))))
        )
        for p in op["parameters"]
    )
    responses = b"".join(
        _bytes(1, _text(1, code) + _bytes(2, _bytes(1, _text(1, r["description"]))))
        for code, r in op["responses"].items()
    )
    return _text(5, op["operationId"]) + parameters + _bytes(9, responses) + _extensions(13, op)


_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}


def encode_document(document: Obj) -> bytes:
    """The document's protobuf encoding."""
    info = _text(1, document["info"]["title"]) + _text(2, document["info"]["version"])
    paths = b"".join(
        _bytes(
            2,
            _text(1, path) + _bytes(2, b"".join(_bytes(_METHODS[m], _operation(o)) for m, o in item.items())),
        )
        for path, item in document["paths"].items()
    )
    schemas = b"".join(_named_schema(k, v) for k, v in document["definitions"].items())
    return _text(1, document["swagger"]) + _bytes(2, info) + _bytes(8, paths) + _bytes(9, schemas)
