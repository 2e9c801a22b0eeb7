"""``towpath upgrade plan --audit``: images, and what the audit and the comparison wrote of them."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from image_cases import config, good, layer, oci
from served_fake import said, served
from towpath.catalogue import load
from towpath.cli.exit import USAGE, CliError
from towpath.cli.image import command
from towpath.cli.upgrade_audits import audited, audits_told
from towpath.image.tree import file
from towpath.kube import fakehttp
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import DAEMONSETS
from towpath.lab import canal
from towpath.upgrade import audits
from towpath.upgrade import plan as plans
from towpath.upgrade.audits import AuditFinding, ImageAudit, ImageChange
from towpath.upgrade.plan import Plan

PLAN = Plan(
    created="now", cluster="uid", namespace="kube-system", daemonset="net", source="v1", target="v2",
    images={"a": ("x:1", "x:2")}, strategy={"type": "OnDelete"}, nodes=(),
)  # fmt: skip


def written(folder: Path, *arguments: str) -> Path:
    """What the command says as JSON."""
    target = folder / "said.json"
    target.write_text(CliRunner().invoke(command, [*arguments, "-o", "json"]).output)
    return target


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    return oci(tmp_path / "bad", layer({**good(), "usr/bin/bash": file("x", 0o755)}), image=config(User=""))


def test_an_image_and_its_audit_as_json_say_the_same(bad: Path, tmp_path: Path) -> None:
    seen = audited(bad)
    assert seen == audited(written(tmp_path, "audit", str(bad)))
    assert seen.grave and seen.digest.startswith("sha256:") and not seen.compared
    assert ("high", "TP8120", "usr/bin/bash") in {(f.severity, f.code, f.path) for f in seen.findings}
    assert sum(seen.counts.values()) == len(seen.findings)


def test_a_comparison_lists_all_but_files(bad: Path, tmp_path: Path) -> None:
    clean = oci(tmp_path / "clean", layer(good()))
    seen = audited(written(tmp_path, "diff", str(clean), str(bad)))
    assert seen.compared and seen.counts["file"] == seen.left_out == 2  # a folder with it
    assert ImageChange("config", "User", "1000:1000", "") in seen.changes
    assert all(change.kind != "file" for change in seen.changes)
    same = audited(written(tmp_path, "diff", str(clean), str(clean)))
    assert (same.verdict, same.left_out) == ("no difference", 0)


def test_whose_audit_it_is_stands_beside_it_and_a_grave_one_is_marked(bad: Path) -> None:
    seen = audited(bad)
    made = msgspec.structs.replace(PLAN, audits=(seen,), digests={"x:2": seen.digest})
    (line,) = audits_told(made)
    assert "it is x:2, by digest" in line and str(bad) in line
    assert "no image that the nodes pulled" in seen.summary({"x:2": "sha256:other"})
    assert "the nodes pulled nothing" in seen.summary({})
    assert "has no digest" in ImageAudit(source="folder").summary({"x:2": ""})


def test_the_worst_are_kept_and_all_are_counted() -> None:
    low = [AuditFinding("low", "TP8123", f"f{number:04}", "x" * 100_000) for number in range(5000)]
    seen = audits.of("x", "", [*low, AuditFinding("critical", "TP8130", "key", "")])
    assert seen.counts == {"critical": 1, "low": 5000}
    assert (len(seen.findings), seen.findings[0].severity, seen.left_out) == (100, "critical", 4901)
    assert len(plans.dump(plans.sign(msgspec.structs.replace(PLAN, audits=(seen,) * 5)))) < 400_000


@pytest.mark.parametrize(
    "text",
    [
        '{"findings": 1}',
        "[1]",
        "{",
        '{"source": "x", "digest": "", "findings": [{"severity": "bad"}]}',
        "[\xff",
        "[" * 100_000,
    ],
)
def test_other_json_is_no_audit(text: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CliError, match=r"odd\.json is neither an image nor the JSON") as refused:
        audited(path)
    assert refused.value.exit_code == USAGE


def test_what_is_no_image_is_refused_by_its_code(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_text("no archive")
    with pytest.raises(CliError, match="TP80"):
        audited(tmp_path / "x.tar")


class Versioned(FakeApiServer):
    """Says which Kubernetes it is."""

    def _discovery(self, path: str) -> fakehttp.Answer | None:
        if path == "/version":
            return fakehttp.Answer(200, {"gitVersion": "v1.32.1"})
        return super()._discovery(path)


def test_the_command_writes_it_into_the_plan_and_says_so(bad: Path, tmp_path: Path) -> None:
    raw = canal.daemonset(load.builtin().release("v1.32.1+rke2r1"))
    target = tmp_path / "plan.json"
    words = ("plan", "--to", "v9", "--tag", "hardened-flannel=v9", "--daemonset", "kube-system/rke2-canal")
    quick = ("--no-pull", "--no-probes", "--no-read-nodes", "--audit", str(bad), "-f", str(target))
    with served(Versioned, tmp_path) as (server, kubeconfig):
        server.put(DAEMONSETS, raw)
        code, told = said("upgrade", *words, *quick, "--kubeconfig", kubeconfig)
    assert code == 0, told
    (kept,) = plans.load(target.read_bytes()).audits
    assert kept == audited(bad) and f"audit of {bad}: {kept.verdict}; the nodes pulled nothing" in told
