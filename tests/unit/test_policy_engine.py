"""The compiler against the oracle: whatever the world, what the program does is what ``evaluate`` says."""

from hypothesis import given, settings

from policy_compiled import assert_same, compiled, dense_worlds, interfaces, several_flows
from policy_interpreter import check
from policy_worlds import worlds
from towpath.policy.evaluate import Flow
from towpath.policy.ir import World


@settings(max_examples=60, deadline=None)
@given(worlds(), several_flows)
def test_the_program_does_what_the_oracle_says(world: World, tried: list[Flow]) -> None:
    table = compiled(world)
    check(table)
    assert_same(world, table, interfaces(world), tried)


@settings(max_examples=120, deadline=None)
@given(dense_worlds(), several_flows)
def test_where_many_policies_apply_as_well(world: World, tried: list[Flow]) -> None:
    table = compiled(world)
    check(table)
    assert_same(world, table, interfaces(world), tried)
