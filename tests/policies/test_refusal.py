"""Reading an engine's "no": every shape of body, and sentences without Python, wrappers and keys."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiao.policies.refusal import MAX_SENTENCE, MAX_TEXT, Refusal, cleaned, of_value, own_words, read


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"error": {"message": "m", "type": "t", "code": 400}}, "m"),
        ({"error": "m"}, "m"),
        ({"object": "error", "message": "m", "code": 400}, "m"),
        ({"type": "error", "error": {"type": "t", "message": "m"}}, "m"),
        ({"detail": "m"}, "m"),
        ({"detail": [{"loc": ["body", "a", 0, "b"], "msg": "m"}]}, "a.0.b: m"),
        ({"message": {"detail": [{"loc": ["body", "a"], "msg": "m"}]}}, "a: m"),
        ({"errors": ["m", "n"]}, "m; n"),
        ({"error": {"message": "", "detail": "m"}}, "m"),
        ({"error": None}, ""),
        ("m", "m"),
        (7, ""),
        ({"error": {"message": 'x: {"error": {"message": "m {} \\" "}}. tail'}}, 'x: m {} " . tail'),
        ({"error": {"message": 'cut {"error": {"mess'}}, 'cut {"error": {"mess'),
    ],
)
def test_shapes(value: object, text: str) -> None:
    assert read(400, json.dumps(value).encode()).text == text


def test_the_status_of_an_error_in_a_success() -> None:
    assert of_value(200, {"error": {"message": "m", "code": 503}}) == Refusal(503, "m", "")
    assert of_value(200, {"error": {"message": "m", "code": "429", "type": "slow"}}) == Refusal(429, "m", "slow")
    assert of_value(200, {"error": {"message": "m", "code": "nope"}}).status == 500
    assert of_value(400, {"error": {"message": "m", "code": 503}}).status == 400


def test_pages_and_noise() -> None:
    assert read(502, b"<!DOCTYPE html><html><head><title> Bad </title></head></html>").text == "Bad"
    assert read(502, b"<html><style>a{}</style><body><p>Sorry</p></body></html>").text == "Sorry"
    assert read(500, b"\xff\xfe\x00\x01" * 9).text == "36 bytes that are not text"
    assert read(500, "caf\u00e9 ferm\u00e9, revenez plus tard".encode("latin-1")).text.startswith("café")
    assert read(500, b"  \n ").text == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "Message: no (Request ID: 1-2), Internal exception: ray.X (Request ID: 1-2), original exception: ",
            "no",
        ),
        ("Message: vllm.exceptions.VLLMValidationError: no (Request ID: 1), Internal exception: x", "no"),
        (
            "litellm.BadRequestError: OpenAIException - no. Received Model Group=a\nAvailable Model Group",
            "no",
        ),
        ("temperature must be in [0, 2], got 2.5. (parameter=temperature, value=2.5)",
         "temperature must be in [0, 2], got 2.5."),
        ("wrong. (parameter=stop)", "stop: wrong."),
        ("1 validation error:\n  {'type': 'missing', 'loc': 'body.messages', 'msg': 'Field required'}",
         "messages: Field required"),
        ("[{'type': 'x', 'loc': ('body', 'tools', 0, 'name'), 'msg': \"it's wrong\", 'input': 1}]",
         "tools.0.name: it's wrong"),
        ("1 validation error for Request\nmessages.0.role\n  Field required [type=missing, input_value={}]\n    For",
         "messages.0.role: Field required"),
        ("2 validation errors:\n  {'loc': 'body.a', 'msg': 'Value error, no'}\n  {'loc': 'body.a', 'msg': 'no'}",
         "a: no"),
        ("5 validation errors:\n" + "\n".join(f"  {{'loc': 'body.f{i}', 'msg': 'no'}}" for i in range(5)),
         "f0: no; f1: no; f2: no; and 2 more"),
        ("a\x00b\n\tc\x1b[31m", "a b c [31m"),
        ("", ""),
    ],
)  # fmt: skip
def test_cleaned(text: str, sentence: str) -> None:
    assert cleaned(text) == sentence


def test_long_texts_are_cut() -> None:
    assert len(cleaned("word " * 5000)) <= MAX_SENTENCE
    assert cleaned("word " * 5000).endswith("…")
    assert len(read(400, b"x" * 10**6).text) == MAX_TEXT


@given(st.text(max_size=300), st.text(alphabet="abcdefXYZ0123456789-", min_size=8, max_size=30))
def test_a_key_in_use_never_passes(text: str, key: str) -> None:
    assert key not in cleaned(f"{text}{key}{text}", secrets=[key])


SAID = "I saw: prompt is too long, and System message must be at the beginning. what now?"
HARD = (SAID, f'it\'s "{SAID}"', f"', 'msg': '{SAID}", f'", "msg": "{SAID}', f"\\'{SAID}\\", f"}}]) {SAID}", "'" + SAID)


def problems(value: object, printed: str) -> str:
    problem = {"type": "extra_forbidden", "loc": ("body", "x"), "msg": "Extra inputs are not permitted", "input": value}
    after = {"type": "missing", "loc": ("body", "y"), "msg": "Field required", "input": {}, "url": "u"}
    match printed:
        case "python":
            return f"2 validation errors:\n  {problem}\n  {after}"
        case "json":
            return json.dumps([problem, after])
        case "python in python":
            return f"Message: no, original exception: {[str([problem, after])]}"
        case "json in json":
            return json.dumps({"said": json.dumps([problem, after])})
        case _:
            raise AssertionError(printed)


@pytest.mark.parametrize("printed", ["python", "json", "python in python", "json in json"])
@pytest.mark.parametrize("said", HARD)
@pytest.mark.parametrize(
    "shape", [lambda said: said, lambda said: {"content": [{"text": said}]}, lambda said: [1, said]]
)
def test_what_is_repeated_of_the_request_is_not_the_engine_s_word(shape: Any, said: str, printed: str) -> None:
    words = own_words(problems(shape(said), printed))
    assert "too long" not in words
    assert "Extra inputs are not permitted" in words
    assert "Field required" in words


@pytest.mark.parametrize("printed", ["python", "json"])
@pytest.mark.parametrize("said", HARD)
def test_a_text_that_was_cut_inside_the_request_s_words(said: str, printed: str) -> None:
    text = problems(said, printed)
    words = own_words(text[: text.index("too long") + 10])
    assert "too long" not in words
    assert "Extra inputs are not permitted" in words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x\n  no [type=t, input_value='prompt is too...ong', input_type=str]\n  For", "input_value=…, input_t"),
        ("wrong. (parameter=stop, value=(too) long) (Request ID: 1), Internal", "wrong. (parameter=stop) (Request ID"),
        ('Failed to parse messages: no; messages = [{"content": "prompt is too', "messages: no; messages = …"),
        ("{'loc': 'body.n', 'msg': 'no', 'input': 7, 'ctx': {'ge': 9}}", "'input': …, 'ctx': {'ge': 9}}"),
        ("{'loc': 'body.n', 'msg': 'no', 'input': None}", "'input': …}"),
        ("the input: prompt is too long", "the input: prompt is too long"),
    ],
)  # fmt: skip
def test_other_ways_to_repeat(text: str, words: str) -> None:
    assert words in own_words(text)


@pytest.mark.parametrize("text", ["\\" * 200_000, "'input': [" * 20_000, "'input': '" * 20_000, "[" * 200_000])
def test_noise_is_read_at_once(text: str) -> None:
    """Each is quadratic for a careless pattern: minutes."""
    assert len(own_words(text)) <= len(text)


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_value_is_left_out(value: object) -> None:
    for printed in ("python", "json"):
        assert own_words(problems(value, printed)) == own_words(problems(None, printed))
