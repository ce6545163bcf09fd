"""Which schema an engine cannot take: found among many, remembered for the last ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qiao.core.conversation import Tool
from qiao.policies.guided import key_of
from qiao.upstream.schemas import Schemas

TOOLS = tuple(Tool(f"tool_{number}") for number in range(40))


class Engine:
    """Refuses tools by their names; None: it does not tell."""

    def __init__(self, bad: set[str], *, answers: bool = True) -> None:
        self.bad = bad
        self.trials: list[tuple[Tool, ...]] = []
        self.answers = answers

    async def trial(self, tools: tuple[Tool, ...]) -> bool | None:
        self.trials.append(tools)
        return not any(tool.name in self.bad for tool in tools) if self.answers else None


@given(st.sets(st.sampled_from([tool.name for tool in TOOLS]), min_size=1, max_size=4))
async def test_exactly_the_culprits_are_found(bad: set[str]) -> None:
    engine, schemas = Engine(bad), Schemas()
    assert await schemas.learn(TOOLS, engine.trial, is_refused=True)
    assert schemas.refused == {key_of(tool) for tool in TOOLS if tool.name in bad}
    assert schemas.unknown(TOOLS) == ()
    assert len(engine.trials) <= 12 * len(bad)
    assert TOOLS not in engine.trials


async def test_what_is_known_is_not_asked_again() -> None:
    engine, schemas = Engine({"tool_3"}), Schemas()
    await schemas.learn(TOOLS, engine.trial, is_refused=True)
    asked = len(engine.trials)
    assert not await schemas.learn(TOOLS, engine.trial, is_refused=True)
    more = (*TOOLS, Tool("new"))
    assert not await schemas.learn(more, engine.trial, is_refused=True)
    assert engine.trials[asked:] == [(Tool("new"),)]


async def test_one_tool_that_was_refused_needs_no_trial() -> None:
    engine, schemas = Engine({"tool_0"}), Schemas()
    assert await schemas.learn(TOOLS[:1], engine.trial, is_refused=True)
    assert engine.trials == []


async def test_an_engine_that_does_not_tell_teaches_nothing() -> None:
    engine, schemas = Engine(set(), answers=False), Schemas()
    assert not await schemas.learn(TOOLS, engine.trial, is_refused=True)
    assert schemas.unknown(TOOLS) == TOOLS
    assert schemas.refused == frozenset()


async def test_trials_are_bounded() -> None:
    engine, schemas = Engine({tool.name for tool in TOOLS}), Schemas()
    await schemas.learn(TOOLS, engine.trial, is_refused=True)
    assert len(engine.trials) <= 48


def test_memory_is_bounded() -> None:
    schemas = Schemas(limit=10)
    schemas.keep(TOOLS, fit=False)
    assert schemas.refused == {key_of(tool) for tool in TOOLS[-10:]}
    # A schema that changed is another one.
    assert schemas.unknown([Tool("tool_39", parameters='{"type":"object"}')])
