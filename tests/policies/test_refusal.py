"""Reading an engine's "no": every shape of body, and sentences without Python, wrappers and keys."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiao.policies.refusal import MAX_SENTENCE, MAX_TEXT, Refusal, cleaned, of_value, read


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
