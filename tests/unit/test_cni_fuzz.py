"""Whatever arrives on stdin, in CNI_ARGS or the environment: a request, or a CniError that can be printed."""

import json
from contextlib import suppress
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from towpath.cni import wire
from towpath.cni.args import parse_args, with_args
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.fold import KEYS as GO_KEYS
from towpath.cni.parse import parse_net_conf, peek_version
from towpath.cni.request import Request
from towpath.cni.result import Result
from towpath.cni.server import read_request
from towpath.cni.types import NetConf
from towpath.cni.version import SUPPORTED

KEYS = st.sampled_from([*GO_KEYS, "MTU", "unheard-of"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(
        ["10.0.0.1", "10.0.0.1/24", "fd00::1/64", "1.2.3.4%x", "tcp", "02:00:00:00:00:01", "1.1.0", "0.2.0"]
    )
)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(), inner, max_size=5)
)
PLAIN = st.characters(exclude_characters="\0", codec="utf-8")
ARGS = st.text() | st.lists(
    st.tuples(st.sampled_from(["IP", "MAC", "IgnoreUnknown", "K8S_POD_NAME", "X", ""]), st.text()).map(
        "=".join
    )
).map(";".join)
LIKELY = st.fixed_dictionaries(
    {"name": st.sampled_from(["net", "", "a b"]), "cniVersion": st.sampled_from([*SUPPORTED, "9.9", ""])},
    optional=dict.fromkeys(
        [
            "mtu",
            "runtimeConfig",
            "args",
            "ipam",
            "dns",
            "prevResult",
            "cni.dev/valid-attachments",
            "disableGC",
        ],
        DOCUMENTS,
    ),
)


def printable(error: CniError) -> None:
    decoded = json.loads(error.encode("0.4.0"))
    assert decoded["code"] in list(ErrorCode)
    assert decoded["msg"]


@given(st.binary() | DOCUMENTS.map(json.dumps).map(str.encode), st.booleans())
@example(b'{"name":"n","mtu":1e400}', False)
@example(b'{"name":"\\ud800"}', False)
def test_stdin(data: bytes, lenient: bool) -> None:
    assert peek_version(data) in SUPPORTED
    try:
        assert isinstance(parse_net_conf(data, lenient=lenient), NetConf)
    except CniError as error:
        printable(error)


@given(LIKELY, st.booleans())
def test_stdin_that_is_nearly_right(document: dict[str, Any], lenient: bool) -> None:
    try:
        config = parse_net_conf(json.dumps(document).encode(), lenient=lenient)
    except CniError as error:
        printable(error)
    else:
        if config.prev_result is not None:
            for version in SUPPORTED:
                with suppress(CniError):  # no address to tell a runtime of 0.2.0
                    again = Result.parse(config.prev_result.to_version(version))
                    assert again.to_version(version) == config.prev_result.to_version(version)


@given(ARGS)
def test_cni_args(text: str) -> None:
    try:
        with_args(NetConf(name="n", cni_version="1.1.0"), parse_args(text))
    except CniError as error:
        printable(error)


@given(DOCUMENTS.map(json.dumps).map(str.encode) | st.binary(), st.sampled_from(SUPPORTED))
def test_results_of_delegates(data: bytes, version: str) -> None:
    try:
        Result.parse(data, version)
    except CniError as error:
        printable(error)


@given(
    st.dictionaries(
        st.sampled_from(
            ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH", "CNI_NETNS", "TOWPATH_NETNS_ERROR"]
        ),
        st.text() | st.binary().map(lambda b: b.decode("utf-8", "surrogateescape")),
    ),
    st.sampled_from(["ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION", "", "\udcff"]),
    LIKELY,
)
def test_environment(env: dict[str, str], command: str, document: dict[str, Any]) -> None:
    try:
        assert isinstance(
            read_request({**env, "CNI_COMMAND": command}, json.dumps(document).encode(), None), Request
        )
    except CniError as error:
        printable(error)


@given(st.binary())
def test_request_bodies(body: bytes) -> None:
    with suppress(wire.BadFrame):
        environment, stdin = wire.parse_body(body)
        assert len(stdin) < len(body)
        assert all(isinstance(k, str) for k in environment)


@given(st.binary(min_size=9, max_size=9))
def test_headers(header: bytes) -> None:
    for parse, size in ((wire.body_length, 8), (wire.executed_header, 9), (wire.stderr_length, 4)):
        with suppress(wire.BadFrame):
            parse(header[:size])


@given(
    st.text(PLAIN, min_size=1),
    st.dictionaries(st.sampled_from(["CNI_A", "CNI_B"]), st.text(PLAIN)),
    st.binary(),
)
def test_what_is_sent_for_execution_reads_back(path: str, env: dict[str, str], stdin: bytes) -> None:
    frame = wire.execute(path, env, stdin)
    assert frame[:5] == b"E" + wire.LENGTH.pack(len(frame) - 5)
    first, _, rest = frame[5:].partition(b"\0")
    assert first == path.encode()
    assert wire.parse_body(rest) == (env, stdin)
