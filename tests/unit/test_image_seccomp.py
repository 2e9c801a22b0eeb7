"""The agent's filter is what agents were seen to call, and what is let through beyond that with a reason."""

import msgspec
import pytest

from towpath.agent.main import PROCESS_NAME
from towpath.image import recording, seccomp
from towpath.image.build import project

KNOWN = seccomp.load(project())


def test_header_and_profile_follow_from_the_recording() -> None:
    """Whichever of the four was edited alone; ``python -m towpath.image.seccomp`` makes two of the others."""
    for path, content in seccomp.made(project()).items():
        assert (project() / path).read_text() == content, path


def test_the_filter_has_what_was_recorded_and_what_has_a_reason_and_nothing_else() -> None:
    listed = seccomp.allowed((project() / seccomp.HEADER).read_text())
    reasons = {call: reason.why for reason in KNOWN.beyond for call in reason.calls}
    assert len(listed) == len(set(listed))
    refused = {call: reason.why for reason in KNOWN.refused for call in reason.calls}
    assert set(listed) == (KNOWN.recorded - seccomp.BY_ARGUMENT - refused.keys()) | reasons.keys()
    assert refused.keys() <= KNOWN.recorded, "refused anyway: take it out of image/syscalls.toml"
    assert all(len(why) > 20 for why in (reasons | refused).values())


@pytest.mark.parametrize(
    "call", ["setns", "unshare", "mount", "bpf", "ptrace", "fork", "setuid", "wait4", "kill"]
)
def test_what_leads_out_was_never_recorded_nor_let_through(call: str) -> None:
    assert call not in KNOWN.calls


def test_a_reason_is_given_once_and_only_for_what_the_recording_lacks() -> None:
    named = [call for reason in KNOWN.beyond for call in reason.calls]
    assert len(named) == len(set(named))
    assert set(named) & KNOWN.recorded == set(), "recorded now: take it out of image/syscalls.toml"


def test_one_more_recorded_call_changes_both_files() -> None:
    more = KNOWN.with_recorded({"quotactl"}, "something")
    assert "ALLOW(quotactl)" in seccomp.header(more)
    assert "quotactl" in seccomp.profile(more)["syscalls"][0]["names"]
    assert msgspec.json.encode(seccomp.profile(more)) != msgspec.json.encode(seccomp.profile(KNOWN))


def test_agents_are_recorded_by_the_name_they_give_themselves() -> None:
    assert recording.PROCESS_NAME == PROCESS_NAME
    assert len(PROCESS_NAME) < 16, "the kernel keeps 15 characters"
