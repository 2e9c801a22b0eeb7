"""Types, decoding checks, custom schemas, OpenAPI documents, protobuf."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.api.protobuf import Malformed, wire_fields
from towpath.lab.apiserver.builtins import builtin_registry
from towpath.lab.apiserver.errors import ApiError
from towpath.lab.apiserver.schema import protobuf, structural, values
from towpath.lab.apiserver.schema.check import decode_check
from towpath.lab.apiserver.schema.openapi import v2_document, v3_document
from towpath.lab.apiserver.schema.openapi_proto import encode_document
from towpath.lab.apiserver.schema.types import types

Obj = dict[str, Any]


def test_every_named_type_exists() -> None:
    named = {f.type for t in types().values() for f in t.fields.values() if not f.scalar}
    assert named <= set(types())
    assert all(r.type in types() for r in builtin_registry())


def test_known_facts_of_the_types() -> None:
    pod = types()["core.PodSpec"].fields
    assert (pod["containers"].merge, pod["containers"].keys, pod["containers"].number) == (
        "name",
        ("name",),
        2,
    )
    assert types()["core.Container"].fields["ports"].keys == ("containerPort", "protocol")
    assert types()["core.Volume"].fields["hostPath"].wrap == 2
    assert types()["core.Pod"].definition == "io.k8s.api.core.v1.Pod"
    assert types()["meta.ObjectMeta"].definition == "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    numbers = [(f.wrap, f.number) for t in types().values() for f in t.fields.values()]
    assert all(n > 0 for _, n in numbers)


def test_unknown_fields_and_nulls_are_dropped() -> None:
    pod: Obj = {
        "metadata": {"name": "a", "zzz": 1},
        "spec": {"containers": [{"name": "c", "bad": 1}], "nodeName": None},
    }
    assert decode_check("core.Pod", "v1", pod) == ["metadata.zzz", "spec.containers[0].bad"]
    assert pod == {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}}


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        (
            {"spec": {"replicas": "x"}},
            "unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        ({"spec": {"replicas": 1 << 40}}, "of type int32"),
        ({"spec": {"paused": 1}}, "of type bool"),
        ({"spec": []}, "of type DeploymentSpec"),
        ({"metadata": {"labels": {"a": 1}}}, "of type string"),
        ({"metadata": {"labels": ["a"]}}, "of type map[string]string"),
        ({"metadata": {"creationTimestamp": "soon"}}, "of type v1.Time"),
    ],
)
def test_wrong_types_are_refused_as_go_does(obj: Obj, text: str) -> None:
    with pytest.raises(ApiError, match="cannot unmarshal") as e:
        decode_check("apps.Deployment", "apps/v1", obj)
    assert text in e.value.message


SCHEMA: Obj = {
    "type": "object",
    "required": ["n"],
    "properties": {
        "n": {"type": "integer", "minimum": 1, "maximum": 5},
        "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
        "port": {"x-kubernetes-int-or-string": True},
        "list": {"type": "array", "maxItems": 2, "items": {
            "type": "object", "properties": {"q": {"type": "string", "default": "d"}}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 3}},
        "ip": {"type": "string", "format": "ipv4"},
        "name": {"type": "string", "pattern": "^[a-z]+$", "nullable": True},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "one": {"type": "object", "x-kubernetes-preserve-unknown-fields": True,
                "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("obj", "want"),
    [
        ({"n": 3}, None),
        ({}, "n: Required value"),
        ({"n": 0}, "greater than or equal to 1"),
        ({"n": 9}, "less than or equal to 5"),
        ({"n": "3"}, "must be of type integer"),
        ({"n": 1.5}, "must be of type integer"),
        ({"n": 2.0}, None),
        ({"n": 1, "mode": "c"}, 'supported values: "a", "b"'),
        ({"n": 1, "port": True}, "integer or string"),
        ({"n": 1, "port": "http"}, None),
        ({"n": 1, "list": [{}, {}, {}]}, "must have at most 2 items"),
        ({"n": 1, "labels": {"a": "long"}}, "Too long"),
        ({"n": 1, "ip": "::1"}, "of type ipv4"),
        ({"n": 1, "name": None}, None),
        ({"n": 1, "name": "A"}, "should match"),
        ({"n": 1, "mode": None}, 'must be of type string: "null"'),
        ({"n": 1, "set": ["a", "a"]}, "Duplicate value"),
        ({"n": 1, "one": {"a": 1, "b": 1}}, "oneOf"),
        ({"n": 1, "one": {"a": 1}}, None),
    ],
)
def test_custom_validation(obj: Obj, want: str | None) -> None:
    causes = [f"{c['field']}: {c['message']}" for c in values.validate(obj, SCHEMA, "")]
    assert causes == [] if want is None else want in causes[0]


def test_what_was_valid_once_may_stay() -> None:
    assert values.validate({"n": 1, "mode": "gone"}, SCHEMA, "", {"n": 3, "mode": "gone"}) == []


def test_pruning_and_defaults() -> None:
    obj = {"kind": "X", "n": 1, "bad": 1, "free": {"x": {"y": 1}}, "list": [{"z": 1}], "labels": {"any": "x"}}
    assert structural.prune(obj, SCHEMA, root=True) == ["bad", "list[0].z"]
    structural.default(obj, SCHEMA)
    assert obj["mode"] == "a"
    assert obj["list"] == [{"q": "d"}]
    assert obj["free"] == {"x": {"y": 1}}


def test_openapi_documents_hang_together() -> None:
    resources = list(builtin_registry())
    v2, v3 = v2_document(resources, {}), v3_document(resources, {})
    for document, found in ((v2, v2["definitions"]), (v3, v3["components"]["schemas"])):
        refs: set[str] = set()

        def collect(node: Any, into: set[str]) -> None:
            if isinstance(node, dict):
                if isinstance(node.get("$ref"), str):
                    into.add(node["$ref"].rpartition("/")[2])
                for child in node.values():
                    collect(child, into)
            elif isinstance(node, list):
                for child in node:
                    collect(child, into)

        collect(document, refs)
        assert refs <= set(found)
    containers = v2["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    encoded = dict(wire_fields(memoryview(encode_document(v2))))
    assert bytes(encoded[1]) == b"2.0"
    names = [bytes(dict(wire_fields(v))[1]).decode() for _, v in wire_fields(encoded[9])]
    assert sorted(names) == sorted(v2["definitions"])


def varint(n: int) -> bytes:
    n &= (1 << 64) - 1
    out = b""
    while n > 0x7F:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    return b"k8s\x00" + field(1, field(1, api_version.encode()) + field(2, kind.encode())) + field(2, raw)


KINDS = {
    ("v1", "Pod"): "core.Pod",
    ("", "DeleteOptions"): "meta.DeleteOptions",
    ("v1", "Secret"): "core.Secret",
}


def test_protobuf_pods() -> None:
    port = field(1, b"") + field(2, 0) + field(3, 80) + field(4, b"TCP")
    container = field(1, b"c") + field(2, b"img") + field(6, port) + field(16, 0)
    volume = field(1, b"v") + field(2, field(1, field(1, b"/x")))
    spec = field(1, volume) + field(2, container) + field(4, 0) + field(7, field(1, b"k") + field(2, b"v"))
    meta = field(1, b"p") + field(8, b"") + field(11, field(1, b"a") + field(2, b""))
    body = envelope("v1", "Pod", field(1, meta) + field(2, spec) + field(3, b""))
    assert protobuf.decode_body(body, KINDS) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {"a": ""}},
        "spec": {
            "volumes": [{"name": "v", "hostPath": {"path": "/x"}}],
            "containers": [
                {"name": "c", "image": "img", "ports": [{"containerPort": 80, "protocol": "TCP"}]}
            ],
            "terminationGracePeriodSeconds": 0,
            "nodeSelector": {"k": "v"},
        },
    }


def test_protobuf_scalars() -> None:
    found = protobuf.decode_body(envelope("policy/v1", "DeleteOptions", field(1, 0)), KINDS)
    assert found["gracePeriodSeconds"] == 0
    assert (
        protobuf.decode_body(envelope("v1", "DeleteOptions", field(1, -1)), KINDS)["gracePeriodSeconds"] == -1
    )
    secret = field(2, field(1, b"k") + field(2, b"\x00\xff")) + field(1, field(8, field(1, 1700000000)))
    found = protobuf.decode_body(envelope("v1", "Secret", secret), KINDS)
    assert found["data"] == {"k": base64.b64encode(b"\x00\xff").decode()}
    assert found["metadata"] == {"creationTimestamp": "2023-11-14T22:13:20Z"}


@given(st.binary(max_size=60))
def test_no_bytes_break_the_protobuf_decoder(data: bytes) -> None:
    for body in (data, b"k8s\x00" + data, envelope("v1", "Pod", data)):
        try:
            protobuf.decode_body(body, KINDS)
        except Malformed as e:
            assert str(e)
