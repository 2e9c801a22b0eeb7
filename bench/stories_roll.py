"""Stories that the gates of the first node catch: its new pod misbehaves, and is Ready or becomes so."""

import json
from typing import Any, NamedTuple

from bench.stories_stage import CHAIN, FLANNELD, NAT, SKIP, TO, Stage
from bench.upgrade import say

OTHERS = '{"cniVersion":"0.3.1","name":"multus","type":"multus-of-another-version"}'
IPSET = "ipset v7.11: Syntax error: cannot parse 'tcp'"
# A match that this kernel (6.18, without xt_ipvs) does not have, as RHEL 10's has none of xtables.
LACKING = "printf '*filter\\n:STORY -\\n-A STORY -m ipvs --ipvs -j ACCEPT\\nCOMMIT\\n'"
LACKING += " | /usr/sbin/iptables-nft-restore --noflush"


class Story(NamedTuple):
    """``says``: is in the verdict; ``first``: what the first new pod does; ``after``: what mends its node.

    ``container``: whose command it is; ``mounts`` as ``Stage.first``; ``churn``: seconds for which a node's
    rules are looked at.
    """

    issue: str
    says: str
    first: str
    after: str = "true"
    container: str = "kube-flannel"
    mounts: dict[str, str] = {}  # noqa: RUF012 (not written to)
    churn: int = 1

    @property
    def stage(self) -> str:
        """As the page calls it."""
        return "roll"


STORIES = (
    Story("k3s#6047", "TP7330", f"{NAT} -F {CHAIN}; exec sleep 1000"),
    Story(
        "flannel#797",
        "TP7331",
        f"{NAT} -F {CHAIN}; {NAT} -A {CHAIN} -s 10.42.0.0/16 -j MASQUERADE; "
        f"{NAT} -A {CHAIN} -s 10.42.0.0/16 -d 10.42.0.0/16 -j RETURN; exec sleep 1000",
    ),
    Story(
        "flannel#1092",  # the old version's rule stays, before the new ones
        "TP7331",
        f"{NAT} -I {CHAIN} 1 -s 10.42.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE; exec sleep 1000",
    ),
    Story("flannel#1913", "TP7336", f"exec {FLANNELD} --rewrites", churn=11),
    Story(
        "calico#5760",
        "TP7323",
        f"exec {FLANNELD} --backend legacy",
        "for t in nat filter; do iptables-legacy -t $t -F; ip6tables-legacy -t $t -F; done",
    ),
    Story(
        "flannel#1795",
        "TP733",  # by the node itself and by its peers
        "ip link set flannel.1 address 02:00:00:00:99:99; exec sleep 1000",
        "ip link del flannel.1",
    ),
    Story(
        "rke2#4568",  # Ready, and no new pod can be attached
        "has no address",
        f"echo '{OTHERS}' > /net.d/00-multus.conf; exec {FLANNELD}",
        "rm -f /etc/cni/net.d/00-multus.conf",
    ),
    Story("rke2#11055", "has no address", f"rm -f /net.d/10-canal.conflist; exec {FLANNELD}"),
    Story("rke2#10494", "started again", "sleep 1; exit 1"),
    Story("rke2#11130", "Syntax error", f'echo "{IPSET}"; exec {FLANNELD}'),
    Story(
        "rke2#8498",
        "exit status 4",
        f'{LACKING} || echo "iptables-nft-restore failed: exit status $?"; exec {FLANNELD}',
    ),
    Story(
        "rke2#11270",
        "not ready",
        "echo 'kernel 7.2: the helper is not known'; exit 1",
        container="flexvol-driver",
    ),
)


def staged(stage: Stage, story: Story) -> dict[str, Any]:
    """Seconds from the replacement of the pod to the verdict, and whether it was as the page says."""
    say(f"{story.issue}: {story.first[:60]}…")
    file = stage.folder / "plan.json"
    plan = ("--to", TO, "-f", str(file), "--no-probes", "--no-pull", "--soak", "1", "--canary-soak", "2")
    within = ("--ready-within", "20", "--sandbox-within", "20", "--churn", str(story.churn))
    stage.towpath("upgrade", "plan", *plan, *within, *SKIP)
    stage.first(story.first, story.container, story.mounts)
    told = stage.towpath("upgrade", "apply", str(file), ok=(0, 4))
    records = json.loads(stage.towpath("upgrade", "report", "-o", "json"))["records"]
    touched = next(record["at"] for record in records if record["event"] == "touch")
    failed = [record for record in records if record["event"] == "failed"]
    hurt = {record["node"] for record in records if record["event"] == "touch"}
    stage.towpath("upgrade", "abort", ok=(0, 4, 7))  # 7: it came to its end
    first = json.loads(file.read_bytes())["nodes"][0]["node"]
    stage.whole(story.after)
    caught = bool(failed) and story.says in failed[0]["text"] and hurt == {first}
    if not caught:
        say(f"not caught by {story.says}: {failed or told[-400:]}")
    return {"after_s": round(failed[0]["at"] - touched, 1) if failed else None, "caught": caught}
