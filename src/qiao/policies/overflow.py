"""What an engine says when a request does not fit its context window, in numbers.

Pure: a text in, an `Excess` out. Each wording is kept with the engine that says it, and searched for anywhere in
the text, because Ray Serve, LiteLLM and other gateways put words around the engine's own. `remedies` uses it to
shorten the answer asked for, `upstream.errors` to tell the client how long the prompt is.
"""

from __future__ import annotations

import re

import msgspec

CHARACTERS_PER_TOKEN = 4
"""For the wordings that count characters only: English prose and code lie between 3 and 5."""

LEAST_ANSWER = 256
"""Tokens. With less room an answer would be cut before it says anything: the prompt counts as too long."""


class Excess(msgspec.Struct, frozen=True):
    """One refusal, in tokens; None: the text does not say.

    * `window`: the engine's context length, prompt and answer together.
    * `prompt`: length of the prompt; a lower bound or an estimate unless `exact`.
    * `answer`: the answer length that the request asked for.
    """

    window: int | None = None
    prompt: int | None = None
    answer: int | None = None
    exact: bool = True


_NUMBER = r"[\d][\d,_]*"

WORDINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "vLLM 0.17 to 0.33: prompt and answer together",
        (
            r"maximum context length is {window} tokens\. However, you requested {answer} output tokens ",
            r"and your prompt contains {least}{prompt} input tokens",
        ),
    ),
    (
        "vLLM 0.17 to 0.33: the prompt alone",
        (
            r"maximum context length is {window} tokens\. ",
            r"However, your prompt contains {least}{prompt} input tokens",
        ),
    ),
    (
        "vLLM 0.24 and later: characters, counted before any token",
        (
            r"maximum context length is {window} tokens\. However, ",
            r"(?:you requested {answer} output tokens and )?your prompt contains {characters} characters ",
            r"\(more than [\d,]+ characters, which is the upper bound for {bound} input tokens\)",
        ),
    ),
    (
        "vLLM between 0.16 and 0.18: tokens, counted up to the longest prompt that would fit",
        (
            r"You passed {prompt} input tokens and requested {answer} output tokens\. However, the model's context ",
            r"length is only {window} tokens, resulting in a maximum input length of {bound} tokens",
        ),
    ),
    (
        "vLLM between 0.16 and 0.18: characters, counted before any token",
        (
            r"You passed {characters} input characters and requested {answer} output tokens\. However, the model's ",
            r"context length is only {window} tokens, resulting in a maximum input length of {bound} tokens",
        ),
    ),
    (
        "vLLM 0.11 to 0.16",
        (
            r"is too large: {answer}\. This model's maximum context length is {window} tokens ",
            r"and your request has {prompt} input tokens",
        ),
    ),
    (
        "vLLM up to 0.10, OpenAI",
        (
            r"maximum context length is {window} tokens.{{0,20}}? you requested (?:about )?[\d,]+ tokens ",
            r"\({prompt} (?:in the messages|in your prompt|of text input)",
            r"[^)]*?{answer} (?:in|for) the (?:completion|output)",
        ),
    ),
    (
        "vLLM up to 0.10: the prompt alone",
        (
            r"maximum context length is {window} tokens.{{0,20}}? (?:you requested|your request has) ",
            r"{prompt} (?:input )?tokens",
            r"(?: in the messages|\. Please reduce the length of the (?:input )?messages)",
        ),
    ),
    (
        "OpenAI: the prompt alone",
        (r"maximum context length is {window} tokens.{{0,20}}? your messages resulted in {prompt} tokens",),
    ),
    (
        "vLLM, offline checks",
        (r"prompt \(length {prompt}\) is longer than the maximum model length of {window}",),
    ),
    (
        "SGLang: the prompt alone",
        (r"input \({prompt} tokens\) is longer than the model's context length \({window}",),
    ),
    (
        "SGLang: prompt and answer together",
        (
            r"maximum context length of {window} tokens\. You requested a total of [\d,]+ tokens: ",
            r"{prompt} tokens from the input messages and {answer} tokens for the completion",
        ),
    ),
    (
        "SGLang, older",
        (r"Input length \(?{prompt}(?: tokens)?\)? exceeds (?:the )?(?:model's )?maximum [a-z ]*?\(?{window}",),
    ),
    ("llama.cpp", (r"request \({prompt} tokens\) exceeds the available context size \({window} tokens\)",)),
    ("llama.cpp, by its fields", (r"\(n_prompt_tokens={prompt}, n_ctx={window}\)",)),
    ("llama-cpp-python", (r"Requested tokens \({prompt}\) exceed context window of {window}",)),
    (
        "TGI: prompt and answer together",
        (r"must be <= {window}\. Given: {prompt} `inputs` tokens and {answer} `max_new_tokens`",),
    ),
    ("TGI: the prompt alone", (r"`inputs` must have less than {window} tokens\. Given: {prompt}",)),
    ("Anthropic: the prompt alone", (r"prompt is too long: {prompt} tokens > {window} maximum",)),
    (
        "Anthropic: prompt and answer together",
        (r"input length and `max_tokens` exceed context limit: {prompt} \+ {answer} > {window}",),
    ),
    ("xAI", (r"maximum prompt length is {window} but the request contains {prompt} tokens",)),
    (
        "Gemini",
        (r"input token count \({prompt}\) exceeds the maximum number of tokens allowed \({window}\)",),
    ),
    ("Mistral", (r"Prompt contains {prompt} tokens.{{0,60}}? model with {window} maximum context length",)),
    ("oMLX", (r"Prompt too long: {prompt} tokens exceeds max context window of {window}",)),
)
"""(who says it, pieces of one pattern). `{name}` stands for a number of that name."""

MARKERS = (
    "exceed_context_size_error",
    "context_length_exceeded",
    "context length exceeded",
    "context window exceeded",
    "contextwindowexceedederror",
    "maximum context length",
    "model's context length is only",
    "exceeds the available context size",
    "exceeds the context window",
    "exceed context window",
    "exceeds the context length",
    "longer than the maximum model length",
    "longer than the model's context length",
    "maximum prompt length",
    "prompt is too long",
    "prompt too long",
    "input is too long",
    "exceeds the maximum number of tokens allowed",
    "exceeded model token limit",
    "prompt exceeds max length",
    "range of input length should be",
    "context window exceeds limit",
    "input token length too long",
    "input tokens exceed the configured limit",
    "maximum context limit",
    "tokens in request more than max tokens allowed",
    "but model only supports up to",
    "reduce the length of the messages",
    "`inputs` tokens + `max_new_tokens` must be",
    "context exceeds your deployment",
    "exceeds the model's maximum context length",
    "max_tokens must be at least 1, got -",
)
"""Words that mean the same without numbers, lower case."""

_WINDOW = rf"(?:context (?:window|size|length)|token limit|max length)\D{{1,12}}({_NUMBER})"

_GROUPS = {name: f"(?P<{name}>{_NUMBER})" for name in ("window", "prompt", "answer", "characters", "bound")} | {
    "least": "(?P<least>at least )?"
}


def find_excess(text: str) -> Excess | None:
    """The refusal in `text`, if it is one for length; None for every other text."""
    for _, wording in WORDINGS:
        if match := re.search("".join(wording).format(**_GROUPS), text, re.IGNORECASE | re.DOTALL):
            return _excess(match.groupdict())
    lowered = text.lower()
    if any(marker in lowered for marker in MARKERS):
        window = re.search(_WINDOW, lowered)
        return Excess(window=_integer(window[1]) if window else None, exact=False)
    return None


def room(excess: Excess, true_count: int | None = None) -> int | None:
    """Tokens that are left for the answer, at least `LEAST_ANSWER`; None: the prompt itself is too long.

    `true_count`: tokens of the prompt as the engine's tokenizer counts them, where the caller asked it. Without
    it an engine that told only a lower bound leaves one sensible step: half of what was asked for.
    """
    prompt = _prompt(excess, true_count)
    if excess.window is None or prompt is None or excess.answer is None:
        return None
    # One less than what fits: SGLang refuses a request that fills its window exactly.
    left = excess.window - prompt - 1
    if true_count is None and not excess.exact:
        left = min(left, excess.answer // 2)
    return left if left >= LEAST_ANSWER else None


def too_long(excess: Excess, true_count: int | None = None) -> str:
    """The sentence that Claude Code acts on (it compacts, and the gap between the numbers says how much)."""
    prompt = _prompt(excess, true_count)
    if excess.window is None:
        return "prompt is too long" if prompt is None else f"prompt is too long: {prompt} tokens"
    # The engine did refuse: where its count is a bound below the window, one more than the window is still true.
    return f"prompt is too long: {max(prompt or 0, excess.window + 1)} tokens > {excess.window} maximum"


def within(excess: Excess, window: int | None, true_count: int | None = None) -> Excess:
    """`excess` with the `window` that the engine listed, where its refusal names none.

    Not where `true_count` leaves room for an answer in it: then the window that was exceeded is another, smaller one.
    """
    if excess.window is not None or window is None:
        return excess
    if true_count is not None and true_count + LEAST_ANSWER <= window:
        return excess
    return msgspec.structs.replace(excess, window=window)


def _prompt(excess: Excess, true_count: int | None) -> int | None:
    """Tokens of the prompt. A count in advance does not see all that the engine itself does (pictures, a template of
    another route), so where the engine's number is exact the larger one is true."""
    if true_count is None or excess.prompt is None or not excess.exact:
        return excess.prompt if true_count is None else true_count
    return max(excess.prompt, true_count)


def _excess(groups: dict[str, str | None]) -> Excess:
    prompt = _integer(groups.get("prompt"))
    bound = _integer(groups.get("bound"))
    # Who tells a bound stopped counting at it.
    exact = groups.get("least") is None and bound is None
    characters = _integer(groups.get("characters"))
    if characters is not None:
        prompt = max((bound or 0) + 1, -(-characters // CHARACTERS_PER_TOKEN))
    return Excess(
        window=_integer(groups.get("window")),
        prompt=prompt,
        answer=_integer(groups.get("answer")),
        exact=exact,
    )


def _integer(digits: str | None) -> int | None:
    # Nothing longer than this is a number of tokens, and Python refuses to read thousands of digits.
    return int(re.sub("[,_]", "", digits)[:15]) if digits else None
