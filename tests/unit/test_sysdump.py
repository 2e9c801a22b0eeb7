"""What leaves the cluster in a bug report has no secrets in it, and is still what it was."""

import io
import json
import tarfile
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.sysdump.collect import Dump
from towpath.sysdump.pack import pack, readme
from towpath.sysdump.redact import REMOVED, redacted

SECRET = "s3cr3tV4lue"
PEM = f"-----BEGIN EC PRIVATE KEY-----\n{SECRET}\n-----END EC PRIVATE KEY-----"
JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "text",
    [
        f"password: {SECRET}",
        f"DB_PASSWORD={SECRET}",
        f'"apiKey": "{SECRET}"',
        f"    client-key-data: {SECRET}",
        f"--etcd-secret-token={SECRET} --other=1",
        f"Authorization: Bearer {SECRET}",
        f"https://admin:{SECRET}@registry.example/v2",
        f'token="{SECRET}\\"{SECRET}"',
        json.dumps({"config": json.dumps({"token": SECRET})}),
        json.dumps({"config": json.dumps({"deeper": json.dumps({"password": SECRET})})}),
        PEM,
        json.dumps({"key.pem": PEM}),
        PEM.partition("-----END")[0],
    ],
)
def test_a_secret_is_removed(text: str) -> None:
    assert SECRET not in redacted(text)
    assert REMOVED in redacted(text)


def test_a_token_is_removed_wherever_it_stands() -> None:
    assert redacted(f"got {JWT}, refused") == f"got {REMOVED}, refused"


@pytest.mark.parametrize(
    "text",
    [
        "ip saddr 10.42.0.0/16 masquerade fully-random",
        '{"secretName": "web-tls", "automountServiceAccountToken": true, "tokens": null}',
        "failed to list secrets: forbidden",
        "https://10.43.0.1:443/api/v1/pods",
        "fd00::1 dev flannel.1 lladdr 02:00:00:00:00:01",
        "    token:\n      audience: towpath",
    ],
)
def test_what_is_none_stays(text: str) -> None:
    assert redacted(text) == text


NAMES = st.sampled_from(["password", "token", "name", "spec", "clientSecret", "data"])
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda part: st.lists(part) | st.dictionaries(NAMES, part),
)


@given(DOCUMENTS)
def test_json_stays_json_of_the_same_shape(value: Any) -> None:
    assert shape(json.loads(redacted(json.dumps(value)))) == shape(value)
    nested = json.loads(redacted(json.dumps({"config": json.dumps(value)})))
    assert isinstance(nested["config"], str)


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value]
    return type(value).__name__


@given(st.text())
def test_any_text_can_be_looked_through(text: str) -> None:
    once = redacted(text)
    assert len(once.splitlines()) <= len(text.splitlines()) + 1


def test_the_archive_says_what_it_lacks() -> None:
    taken = datetime(2026, 11, 27, tzinfo=UTC)
    text = readme(Dump({}, ("pods/log: forbidden",)), "1", taken)
    assert "- pods/log: forbidden" in text
    data = pack({"README": text, "a/b.log": "x"}, taken)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["towpath-sysdump/README", "towpath-sysdump/a/b.log"]
    assert data == pack({"a/b.log": "x", "README": text}, taken)
