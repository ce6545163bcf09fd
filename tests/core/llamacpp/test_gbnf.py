"""Every sentence of a grammar fits its schema: checked by drawing sentences, without an engine."""

from __future__ import annotations

import json
import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from qiao.core.llamacpp.gbnf import Bounds, grammar, schema_node
from qiao.core.llamacpp.rules import Rules
from tests.core.llamacpp.schemas import schemas
from tests.core.llamacpp.sentences import Sentences

SMALL = (Bounds(string=6, items=3, members=2, depth=1, recursion=1),)


def sentences(schema: object, seed: int = 0, count: int = 12, ladder: tuple[Bounds, ...] = SMALL) -> list[str]:
    reader = Sentences(grammar(schema, limit=10**9, ladder=ladder))
    generator = random.Random(seed)
    return [reader.draw(generator, generator.choice([0.1, 0.5, 0.95])) for _ in range(count)]


def is_satisfiable(schema: object) -> bool:
    from qiao.core.llamacpp.gbnf import _Converter

    return _Converter(schema, Rules(), SMALL[0]).value(schema, ()) is not None


@given(schema=schemas, seed=st.integers(0, 2**32))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_sentence_fits(schema: object, seed: int) -> None:
    drawn = sentences(schema, seed)
    values = [json.loads(text) for text in drawn]
    if not is_satisfiable(schema):
        return
    validator = Draft202012Validator(schema)
    for value in values:
        problems = [problem.message for problem in validator.iter_errors(value)]
        assert not problems, (value, problems)


@given(schema=schemas, seed=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_longest_is_an_upper_bound(schema: object, seed: int) -> None:
    rules = Rules()
    node = schema_node(schema, rules, SMALL[0])
    reader = Sentences(rules.written(node))
    generator = random.Random(seed)
    for _ in range(10):
        assert node.shortest <= len(reader.draw(generator, 0.97)) <= node.longest
