"""Verdicts: only a complete and one-sided record counts as proof."""

from hypothesis import given
from hypothesis import strategies as st

from towpath.agent.offload_evidence import ROUNDS, Evidence

SIZES = (33, 1421)


def evidence(outcomes: dict[int, list[tuple[bool, bool]]]) -> Evidence:
    """Rounds by size: (control came back, plain came back)."""
    made = Evidence(SIZES)
    for size, rounds in outcomes.items():
        for control, plain in rounds:
            made.sent(size, control=True)
            made.sent(size, control=False)
            if control:
                made.answered(size, control=True)
            if plain:
                made.answered(size, control=False)
    return made


def test_all_back_works_at_once() -> None:
    assert evidence({s: [(True, True)] for s in SIZES}).verdict() == "works"


def test_only_plain_lost_is_broken() -> None:
    assert evidence({s: [(True, False)] * ROUNDS for s in SIZES}).verdict() == "broken"


def test_one_size_is_enough_to_be_broken() -> None:
    made = evidence({33: [(True, True)] * ROUNDS, 1421: [(True, False)] * ROUNDS})
    assert made.verdict() == "broken"


def test_everything_lost_proves_nothing() -> None:
    assert evidence({s: [(False, False)] * ROUNDS for s in SIZES}).verdict() == "inconclusive"


def test_too_few_rounds_prove_nothing() -> None:
    assert evidence({s: [(True, False)] * (ROUNDS - 1) for s in SIZES}).verdict() == "inconclusive"


rounds = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=ROUNDS + 2)


@given(small=rounds, large=rounds)
def test_broken_needs_a_flawless_record(
    small: list[tuple[bool, bool]], large: list[tuple[bool, bool]]
) -> None:
    verdict = evidence({33: small, 1421: large}).verdict()
    flawless = any(
        len(record) >= ROUNDS and all(control and not plain for control, plain in record)
        for record in (small, large)
    )
    assert (verdict == "broken") == flawless
