"""kubeconfig as kubectl reads it, and sentences for what is wrong with one."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from towpath.kube import config
from towpath.kube.config import Credentials
from towpath.kube.errors import KubeConfigError


def kubeconfig(tmp_path: Path, name: str = "config", **changes: Any) -> Path:
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "clusters": [
            {"name": "c", "cluster": {"server": "https://10.0.0.1:6443", "tls-server-name": "api"}},
            {"name": "d", "cluster": {"server": "http://[::1]:8080"}},
        ],
        "users": [{"name": "u", "user": {"token": "t0ken"}}],
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "ns"}},
            {"name": "two", "context": {"cluster": "d"}},
        ],
    }
    path = tmp_path / name
    path.write_text(yaml.safe_dump(document | changes))
    return path


def test_current_context(tmp_path: Path) -> None:
    read = config.load(str(kubeconfig(tmp_path)), environ={})
    assert (read.server, read.server_name, read.namespace) == ("https://10.0.0.1:6443", "api", "ns")
    assert Credentials(read).header() == "Bearer t0ken"


def test_named_context_and_no_user(tmp_path: Path) -> None:
    read = config.load(str(kubeconfig(tmp_path)), "two", environ={})
    assert read.server == "http://[::1]:8080"
    assert Credentials(read).header() == ""
    assert read.tls() is None


def test_json_kubeconfig(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(
        '{"current-context":"x","clusters":[{"name":"c","cluster":{"server":"http://a:1"}}],'
        '"contexts":[{"name":"x","context":{"cluster":"c"}}]}'
    )
    assert config.load(str(path), environ={}).server == "http://a:1"


def test_environment_merges_and_the_first_wins(tmp_path: Path) -> None:
    first = kubeconfig(
        tmp_path,
        "first",
        clusters=[{"name": "c", "cluster": {"server": "http://first:1"}}],
        contexts=None,
        users=None,
        **{"current-context": ""},
    )
    second = kubeconfig(tmp_path, "second")
    read = config.load(environ={"KUBECONFIG": f"{first}:{second}"})
    assert read.server == "http://first:1"
    assert read.token == "t0ken"


def test_files_are_relative_to_the_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("CA")
    (tmp_path / "token").write_text("from-file\n")
    path = kubeconfig(
        tmp_path,
        clusters=[{"name": "c", "cluster": {"server": "https://a", "certificate-authority": "ca.crt"}}],
        users=[{"name": "u", "user": {"tokenFile": "token"}}],
    )
    read = config.load(str(path), environ={})
    assert read.ca == b"CA"
    assert Credentials(read).header() == "Bearer from-file"


def test_embedded_data_and_basic_auth(tmp_path: Path) -> None:
    data = base64.b64encode(b"PEM").decode()
    path = kubeconfig(
        tmp_path,
        clusters=[{"name": "c", "cluster": {"server": "https://a", "certificate-authority-data": data}}],
        users=[{"name": "u", "user": {"username": "me", "password": "pw"}}],
    )
    read = config.load(str(path), environ={})
    assert read.ca == b"PEM"
    assert Credentials(read).header() == "Basic " + base64.b64encode(b"me:pw").decode()
    with pytest.raises(KubeConfigError, match="must be PEM"):
        read.tls()


def test_in_cluster(tmp_path: Path) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(KubeConfigError, match="not readable"):
        config.in_cluster(environ, tmp_path)
    (tmp_path / "token").write_text("sa")
    (tmp_path / "namespace").write_text("kube-system\n")
    read = config.in_cluster(environ, tmp_path)
    assert (read.server, read.namespace) == ("https://[fd00::1]:443", "kube-system")
    assert Credentials(read).header() == "Bearer sa"


def test_nothing_at_all_names_everything_tried(tmp_path: Path) -> None:
    with pytest.raises(KubeConfigError) as raised:
        config.load(environ={"HOME": str(tmp_path)})
    assert "$KUBECONFIG" in str(raised.value)
    assert str(tmp_path / ".kube/config") in str(raised.value)
    (tmp_path / ".kube").mkdir()
    kubeconfig(tmp_path).replace(tmp_path / ".kube/config")
    assert config.load(environ={"HOME": str(tmp_path)}).token == "t0ken"


@pytest.mark.parametrize(
    ("changes", "context", "words"),
    [
        ({}, "three", "context 'three' is not among its contexts (known: one, two)"),
        ({"current-context": None}, "", "no current-context"),
        ({"clusters": None}, "", "cluster 'c' is not among"),
        ({"users": []}, "", "user 'u' is not among"),
        ({"clusters": [{"name": "c", "cluster": {"server": "10.0.0.1"}}]}, "", "is not a URL"),
        ({"users": [{"name": "u", "user": {"exec": {"command": "aws"}}}]}, "", "logs in through 'exec'"),
        ({"users": [{"name": "u", "user": {"client-key-data": "!"}}]}, "", "client-key-data is not base64"),
        ({"users": [{"name": "u", "user": {"client-key": "no.key"}}]}, "", "no.key: No such file"),
    ],
)
def test_sentences(tmp_path: Path, changes: dict[str, Any], context: str, words: str) -> None:
    with pytest.raises(KubeConfigError) as raised:
        config.load(str(kubeconfig(tmp_path, **changes)), context, environ={})
    assert words in str(raised.value)


@pytest.mark.parametrize("text", ["", "just words", "a: b: c", "\x00"])
def test_not_a_kubeconfig(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(KubeConfigError, match="is this a kubeconfig"):
        config.load(str(path), environ={})


def test_token_survives_an_unreadable_moment(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one")
    credentials = Credentials(config.ClientConfig(server="http://a", source="s", token_file=str(token)))
    assert credentials.header() == "Bearer one"
    token.unlink()
    assert credentials.header() == "Bearer one"
    token.write_text("two!")
    assert credentials.header() == "Bearer two!"
