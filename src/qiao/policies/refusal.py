"""An engine's "no", read: the bytes that came back with an error status become one `Refusal` with a plain text.

Pure. `read` keeps the engine's own words (`remedies` and `overflow` search them); `cleaned` turns them into a
sentence for a person: without the wrappers of Ray Serve and LiteLLM, without Python literals or keys, and short.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence

import msgspec

MAX_BODY = 256 * 1024
"""Bytes of an error body that are looked at."""

MAX_TEXT = 16 * 1024
"""Characters of an error text that are searched."""

MAX_SENTENCE = 600
"""Characters of an error text that a client sees: a validation error can be far longer than what it is about."""

_SHOWN_PROBLEMS = 3


class Refusal(msgspec.Struct, frozen=True):
    """What an upstream answered instead of an answer.

    * `status`: HTTP status; where that was no error but the body is one, the code in the body, else 500.
    * `text`: the engine's own words, at most `MAX_TEXT` characters, without what it repeats of the request; empty when
      it said nothing readable.
    * `kind`: the engine's word for the error (`exceed_context_size_error`), empty if none.
    """

    status: int
    text: str
    kind: str = ""


def read(status: int, body: bytes) -> Refusal:
    """The refusal in `body`: JSON of any known shape, HTML, plain text, nothing, or noise."""
    raw = body[:MAX_BODY]
    if not raw.strip():
        return Refusal(_effective(status, None), "")
    try:
        value: object = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Refusal(_effective(status, None), own_words(_plain(raw))[:MAX_TEXT])
    return of_value(status, value)


def of_value(status: int, value: object) -> Refusal:
    """The refusal in decoded JSON, such as an error object inside a stream."""
    kind, code = "", None
    error = value.get("error", value) if isinstance(value, dict) else value
    if isinstance(error, dict):
        named = error.get("type") or error.get("code")
        kind = named if isinstance(named, str) else ""
        code = error.get("code")
    text = _message(value)
    if isinstance(error, dict) and isinstance(error.get("n_prompt_tokens"), int):
        # llama.cpp tells the numbers beside the sentence, in some versions only there.
        text += f" (n_prompt_tokens={error['n_prompt_tokens']}, n_ctx={error.get('n_ctx')})"
    if kind and kind.endswith("_error") and "context" in kind:
        text += f" [{kind}]"
    return Refusal(_effective(status, code), own_words(_inner(text))[:MAX_TEXT], kind)


def own_words(text: str) -> str:
    """`text` without the values of the request that it repeats: in them stands whatever a person wrote, an engine's
    refusal among it. Where the text was cut inside such a value, all the rest is the value's."""
    pieces: list[str] = []
    at = 0
    while key := _ECHO.search(text, at):
        pieces.append(text[at : key.end()] + "…")
        at = _value_end(text, key.end())
    pieces.append(text[at:])
    left = re.sub(r"(?<=input_value=)[^\n]*?(?=, input_type=|\n|\Z)", "…", "".join(pieces))
    left = re.sub(r"(?<=; messages = )[\[{].*|(?<=; tools = )[\[{].*", "…", left, flags=re.DOTALL)
    return re.sub(_PARAMETER_VALUE, r"\1)", left, flags=re.DOTALL)


def cleaned(text: str, *, secrets: Sequence[str] = ()) -> str:
    """`text` as one sentence for a person, at most `MAX_SENTENCE` characters; empty if nothing is left.

    `secrets`: keys in use, which never pass, whatever an upstream echoes.
    """
    sentence = _without_wrappers(text)
    sentence = _validation(sentence) or sentence
    sentence = _parameter(sentence)
    sentence = " ".join("".join(c if c.isprintable() else " " for c in sentence).split())
    sentence = _redacted(sentence, secrets)
    if len(sentence) > MAX_SENTENCE:
        sentence = sentence[: MAX_SENTENCE - 1].rstrip() + "…"
    return sentence


# pydantic's problems as Python or JSON prints them, escaped again where a text stands within a text.
_ECHO = re.compile(r"(?<!\\)\\*+['\"]input\\*+['\"]\s*+:\s*+")
_QUOTE = r"(?<!\\)(?P<slashes>\\*+)(?P<quote>['\"])"
_QUOTE_OR_BRACKET = re.compile(rf"{_QUOTE}|[\[({{\])}}]")
_CLOSING = {quote: re.compile(rf"(?<!\\)(\\*+){quote}") for quote in "'\""}
_BARE = re.compile(r"[^,}\])\n]*")
# vLLM, at the end of its sentence; Ray puts its own words after it.
_PARAMETER_VALUE = r"(\(parameter=[\w.\[\]]+), value=.*?(?:\)(?=\s*(?:\Z|\n|\(Request ID|, Internal exception))|\Z)"


def _value_end(text: str, start: int) -> int:
    """Where the Python or JSON value that begins at `start` ends; the end of `text` if it does not."""
    if _QUOTE_OR_BRACKET.match(text, start) is None:
        bare = _BARE.match(text, start)
        return bare.end() if bare else start
    depth, at = 0, start
    while found := _QUOTE_OR_BRACKET.search(text, at):
        at = found.end()
        if found["quote"]:
            at = _string_end(text, at, found["quote"], len(found["slashes"]))
        else:
            depth += 1 if found[0] in "[({" else -1
        if depth <= 0:
            return at
    return len(text)


def _string_end(text: str, at: int, quote: str, slashes: int) -> int:
    """Behind the quote that closes a string. `slashes`: how many stand before its own quotes, as many as the text is
    deep within texts; another number before a quote makes it part of what the string says."""
    for closing in _CLOSING[quote].finditer(text, at):
        if len(closing[1]) % (2 * slashes + 2) == slashes:
            return closing.end()
    return len(text)


def _effective(status: int, code: object) -> int:
    if status >= 400:
        return status
    if isinstance(code, str) and code.isdecimal() and len(code) == 3:
        code = int(code)
    return code if isinstance(code, int) and 400 <= code <= 599 else 500


def _message(value: object, depth: int = 0) -> str:
    """The words in an error object; every server has its own place for them."""
    if isinstance(value, str):
        return value
    if depth > 4:
        return ""
    if isinstance(value, list):
        problems = [_problem(item) or _message(item, depth + 1) for item in value[:20]]
        return "; ".join(problem for problem in problems if problem)
    if not isinstance(value, dict):
        return ""
    for name in (
        "error",
        "message",
        "detail",
        "msg",
        "error_message",
        "error_description",
        "errors",
        "reason",
    ):
        inner = value.get(name)
        if name == "message" and inner and isinstance(value.get("metadata"), dict):
            # OpenRouter says "Provider returned error"; what the provider said stands in metadata.raw.
            said = _message(value["metadata"].get("raw"), depth + 1)
            inner = f"{inner}: {said}" if said else inner
        if found := _message(inner, depth + 1):
            return found
    return ""


def _problem(item: object) -> str:
    """One entry of a FastAPI validation error: `{"loc": [...], "msg": ...}`."""
    if isinstance(item, Mapping) and isinstance(item.get("msg"), str):
        path = _dotted(item.get("loc"))
        return f"{path}: {item['msg']}" if path else str(item["msg"])
    return ""


def _inner(text: str) -> str:
    """LiteLLM and others put the engine's JSON into their own sentence: take the words out of it."""
    for _ in range(3):
        start = re.search(r"\{\s*\"(?:error|object|detail|message)\"\s*:", text)
        if start is None:
            break
        try:
            value = msgspec.json.decode(_balanced(text[start.start() :]))
        except (msgspec.DecodeError, RecursionError):
            break
        message = _message(value)
        if not message:
            break
        text = text[: start.start()] + message + text[start.start() + len(_balanced(text[start.start() :])) :]
    return text


def _balanced(text: str) -> str:
    """The JSON object at the start of `text`, up to its closing brace; all of it when it is not closed."""
    depth, in_string, escaped = 0, False, False
    for index, char in enumerate(text[:MAX_TEXT]):
        if in_string:
            in_string, escaped = escaped or char != '"', char == "\\" and not escaped
        elif char == '"':
            in_string = True
        elif char in "{}":
            depth += 1 if char == "{" else -1
            if depth == 0:
                return text[: index + 1]
    return text


def _plain(raw: bytes) -> str:
    """Words out of bytes that are no JSON: the title and text of a page, or the text itself."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        readable = sum(32 <= byte < 127 or byte in b"\r\n\t" for byte in raw)
        if readable < 0.9 * len(raw):
            return f"{len(raw)} bytes that are not text"
        text = raw.decode("latin-1")
    if re.match(r"\s*(?:<!doctype|<html|<head|<body|<\?xml)", text, re.IGNORECASE):
        title = re.search(r"<title[^>]*>([^<]*)</title>", text, re.IGNORECASE)
        if title and title[1].strip():
            return title[1].strip()
        text = re.sub(r"<(script|style)\b.*?</\1>", " ", text, flags=re.IGNORECASE | re.DOTALL)
        return re.sub(r"<[^>]*>", " ", text).strip()
    return text


def _without_wrappers(text: str) -> str:
    ray = re.search(r"^\s*Message: (.*?)(?: \(Request ID: [^)]*\))?, Internal exception: ", text, re.DOTALL)
    if ray:
        text = ray[1]
    text = re.split(r"[.\s]*Received Model Group=|[.\s]*No fallback model group found", text, maxsplit=1)[0]
    # One exception name before another, as LiteLLM and Ray write them: `litellm.BadRequestError: OpenAIException - …`.
    return re.sub(r"^(?:(?:[\w]+\.)*\w*(?:Error|Exception)\s*(?:: |- ))+", "", text.strip())


_QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""


def _validation(text: str) -> str:
    """`path: what is wrong` out of a pydantic error as vLLM, Ray, SGLang and FastAPI print them; "" for other texts."""
    problems: list[str] = []
    pairs = re.finditer(rf"'loc': (?P<loc>{_QUOTED}|[\[(][^\])]*[\])]), 'msg': (?P<msg>{_QUOTED})", text)
    for pair in pairs:
        path, said = _dotted(_literal(pair["loc"])), str(_literal(pair["msg"]))
        problems.append(f"{path}: {said}" if path else said)
    if not problems and re.search(r"\d+ validation errors? for ", text):
        # pydantic's own print: the path on a line of its own, the problem indented below it.
        lines = re.finditer(r"^(?P<loc>[\w.\[\]-]+)\n[ \t]+(?P<msg>[^\n\[]+)", text, re.MULTILINE)
        problems = [f"{_dotted(line['loc'])}: {line['msg'].strip()}" for line in lines]
    problems = list(dict.fromkeys(problem.replace("Value error, ", "") for problem in problems))
    if len(problems) > _SHOWN_PROBLEMS:
        problems = [*problems[:_SHOWN_PROBLEMS], f"and {len(problems) - _SHOWN_PROBLEMS} more"]
    return "; ".join(problems)


def _literal(source: str) -> object:
    try:
        value: object = ast.literal_eval(source)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return source.strip("'\"")
    return value


def _dotted(location: object) -> str:
    """`messages.0.role` from any way to write a place; the names of pydantic's union arms are left out."""
    names = re.split(r"[.\[\]]+", location) if isinstance(location, str) else location
    if not isinstance(names, list | tuple):
        return ""
    steps = [str(name) for name in names if str(name) and not re.match(r"[A-Z]|function-|tagged-", str(name))]
    if steps and steps[0] == "body":
        steps = steps[1:]
    return ".".join(steps)


def _parameter(text: str) -> str:
    """vLLM's `(parameter=stop, value=…)` becomes the path in front, unless the sentence names it already."""
    match = re.search(r"\s*\(parameter=([\w.]+)(?:, value=[^)]*)?\)", text)
    if match is None:
        return text
    rest = (text[: match.start()] + text[match.end() :]).strip()
    name = match[1]
    return rest if name in rest or name in ("input_tokens", "input_text", "type") else f"{name}: {rest}"


def _redacted(text: str, secrets: Sequence[str]) -> str:
    for secret in sorted((s for s in secrets if len(s) >= 4), key=len, reverse=True):
        text = text.replace(secret, "[key]")
    text = re.sub(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}", r"\1 [key]", text)
    text = re.sub(r"\b(?:sk|pk|hf|ak|gsk|xai|nvapi|key|token)[-_][\w*.-]{6,}", "[key]", text)
    text = re.sub(r"(?i)\bhash(?: \(token\))?\s*=\s*\w+", "hash [key]", text)
    return re.sub(r"(?<=://)[^\s/@:]+:[^\s/@]+@", "", text)
