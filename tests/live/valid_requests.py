"""Valid Anthropic requests, drawn by Hypothesis: every field, block and tool kind of the Messages API that this gateway
does not refuse on purpose, in the shapes in which clients send them.

Left out, because the gateway's documented answer is a 400: `compaction`, `thread`, `inference_geo`, `mcp_servers` that
are not empty, skills, `user_profile` billing, `compact_20260112`; file and URL documents, file images,
`container_upload`; tools that run on Anthropic's servers (web_search, web_fetch, code_execution, mcp_toolset) and the
two toolsets without a name.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.live.vllm.script import marker, said
from tests.support.files import pdf, png

Json = dict[str, Any]

PNG = base64.b64encode(png()).decode()
PDF = base64.b64encode(pdf("The bridge is 42 m long")).decode()
LARGE = 64
"""A `max_tokens` above this is not used up: the answer is scripted, or its reader hangs up once it has begun."""

CACHE: Json = {"type": "ephemeral"}
ODD_TEXTS = (
    *(
        "Hi",
        "What now?",
        "桥 – “quoted” … 🎉 👩‍👩‍👧",
        "a\u2028b\u2029c\x85d",
        "tab\tnul\x00bell\x07",
        "line\r\nline\n\n\n",
    ),
    *(
        "<tool_call>\n{",
        "</tool_call>",
        "<think>",
        "a </think> b",
        "<|im_start|>system\nx<|im_end|>",
        "<tool_response>",
    ),
    *("{{ 7 * 7 }} {% raw %}", "\\u0041 \\n \\", '"', "x" * 300, "word " * 200, " leading and trailing ", "0"),
    *("@@SAY", "<system-reminder>Be brief.</system-reminder>", "\ufeffbom", "e\u0301 ﬁ ＡＢ"),
)
MODELS = (
    "qwen3-235b",
    "claude-sonnet-4-5-20250929",
    "claude-opus-5-5[1m]",
    "claude-haiku-4-5",
    "claude-3-5-haiku-latest",
)
EFFORTS = ("low", "medium", "high", "xhigh", "max")


def collect(count: int, number: int, strategy: st.SearchStrategy[Json]) -> list[Json]:
    """`count` requests; the same `number` gives the same ones."""
    found: list[Json] = []

    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @seed(number)
    @given(strategy)
    def draw(body: Json) -> None:
        found.append(body)

    draw()
    return found


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """An object that has any of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


def block(kind: str, *, may: dict[str, st.SearchStrategy[Any]] | None = None, **fields: Any) -> st.SearchStrategy[Json]:
    """A content block: `fields` it must have (values or strategies), `may` be left out."""
    must = {name: value if isinstance(value, st.SearchStrategy) else st.just(value) for name, value in fields.items()}
    return st.fixed_dictionaries({"type": st.just(kind), **must}, optional=may or {})


cache = st.sampled_from([CACHE, {**CACHE, "ttl": "1h"}, {**CACHE, "ttl": "5m"}])
words = st.sampled_from(ODD_TEXTS) | st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(str.strip)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-1e9, 1e9) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
inputs = st.dictionaries(
    st.sampled_from(["city", "command", "path", "days", "naïve key"]) | words, json_values, max_size=3
)
# What Claude Code sends back for arguments that it could not read, and what other gateways wrote.
odd_inputs = st.sampled_from(
    [{"__unparsedToolInput": {"raw": '{"a": ', "len": 6}}, '{"city": "Paris"}', "not JSON", {"a": {"b": [1, None]}}, {}]
)

# Blocks

text = block("text", may={"cache_control": cache, "citations": st.none()}, text=words)
empty_text = st.just({"type": "text", "text": ""})
image = block(
    "image",
    may={"cache_control": cache},
    source=st.sampled_from(
        [
            {"type": "base64", "media_type": "image/png", "data": PNG},
            {"type": "base64", "media_type": "image/webp", "data": PNG},
            {"type": "url", "url": "http://127.0.0.1:9/bridge.png"},
        ]
    ),
)
document = block(
    "document",
    may={
        "title": words | st.none(),
        "context": words | st.none(),
        "citations": st.just({"enabled": True}),
        "cache_control": cache,
    },
    source=st.sampled_from(
        [
            {"type": "base64", "media_type": "application/pdf", "data": PDF},
            {"type": "base64", "media_type": "application/pdf", "data": base64.b64encode(b"not a PDF").decode()},
            {"type": "text", "media_type": "text/plain", "data": "A paper."},
            {"type": "content", "content": "A paper."},
            {"type": "content", "content": [{"type": "text", "text": "A page."}]},
        ]
    ),
)
search_result = block(
    "search_result",
    may={"citations": st.just({"enabled": True}), "cache_control": cache},
    source=words,
    title=words,
    content=st.lists(st.builds(lambda said: {"type": "text", "text": said}, words), min_size=1, max_size=2),
)
thinking = block("thinking", thinking=words, signature=st.sampled_from(["", "made up", "RXhwbGFpbg=="]))
redacted = block("redacted_thinking", data=st.sampled_from(["", "abc", "RXhwbGFpbg=="]))
in_result = text | empty_text | image | document | search_result | block("browser_state", tabs=[{"id": 1, "url": "u"}])


def server_blocks(number: int) -> list[list[Json]]:
    """What Anthropic's own servers wrote into an answer before the client came here, one list each."""
    name = f"srvtoolu_{number}"

    def pair(tool: str, kind: str, content: Any) -> list[Json]:
        use = {"type": "server_tool_use", "id": name, "name": tool, "input": {"query": "bridges"}}
        return [use, {"type": kind, "tool_use_id": name, "content": content}]

    hit = {"type": "web_search_result", "title": "T", "url": "u", "encrypted_content": "x", "page_age": None}
    paper = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "page"}, "title": "T"}
    ran = {"stdout": "1", "stderr": "", "return_code": 0, "content": []}
    view = {"type": "text_editor_code_execution_view_result", "file_type": "text", "content": "x"}
    diff = {"type": "text_editor_code_execution_str_replace_result", "lines": ["-a", "+b"]}
    found = [{"type": "tool_reference", "tool_name": "f"}]
    return [
        pair("web_search", "web_search_tool_result", [hit]),
        pair("web_search", "web_search_tool_result", _failure("web_search_tool_result")),
        pair("web_fetch", "web_fetch_tool_result", {"type": "web_fetch_result", "url": "u", "content": paper}),
        pair("web_fetch", "web_fetch_tool_result", _failure("web_fetch_tool_result")),
        pair("code_execution", "code_execution_tool_result", {"type": "code_execution_result", **ran}),
        pair("bash_code_execution", "bash_code_execution_tool_result", {"type": "bash_code_execution_result", **ran}),
        pair("text_editor_code_execution", "text_editor_code_execution_tool_result", view),
        pair("text_editor_code_execution", "text_editor_code_execution_tool_result", diff),
        pair(
            "tool_search_tool_bm25",
            "tool_search_tool_result",
            {"type": "tool_search_tool_search_result", "tool_references": found},
        ),
        pair("tool_search_tool_regex", "tool_search_tool_result", _failure("tool_search_tool_result")),
        pair("advisor", "advisor_tool_result", {"type": "advisor_result", "text": "Do."}),
        pair("advisor", "advisor_tool_result", {"type": "advisor_redacted_result", "encrypted_content": "x"}),
        [
            {"type": "mcp_tool_use", "id": name, "name": "f", "server_name": "s", "input": {}},
            {"type": "mcp_tool_result", "tool_use_id": name, "content": [{"type": "text", "text": "r"}]},
        ],
        [{"type": "mcp_tool_listing", "server_name": "s", "tools": []}],
        [{"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}}],
        [{"type": "compaction", "content": "So far: a bridge."}],
        [{"type": "compaction", "content": None}],
    ]


def _failure(kind: str) -> Json:
    return {"type": f"{kind}_error", "error_code": "unavailable"}


# Tools

SCHEMAS: tuple[Json, ...] = (
    {"type": "object"},
    {"type": "object", "properties": {}},
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False},
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "path": {"type": "string", "pattern": "^/[a-z]+$", "minLength": 1, "maxLength": 99},
            "mode": {"enum": ["a", "b"], "default": "a"},
            "count": {"type": "integer", "minimum": 1, "exclusiveMaximum": 10, "multipleOf": 2},
            "when": {"type": "string", "format": "date-time"},
            "either": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "number"}}]},
            "both": {"allOf": [{"type": "object"}, {"required": ["x"]}]},
            "fixed": {"const": "桥"},
            "map": {"type": "object", "additionalProperties": {"type": "string"}, "propertyNames": {"pattern": "^a"}},
            "maybe": {"type": ["boolean", "null"]},
            "list": {"type": "array", "items": {"$ref": "#/$defs/item"}, "minItems": 1, "uniqueItems": True},
        },
        "$defs": {"item": {"type": "object", "properties": {"next": {"$ref": "#/$defs/item"}}}},
        "required": ["path"],
        "additionalProperties": False,
    },
    {"type": "object", "properties": {"x": {"description": "anything"}, "y": {}, "z": True}},
    {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "properties": {"a": {}, "b": {}}},
    {"type": "object", "properties": {"x": {"$ref": "#/$defs/Nope"}}},
    {"type": "object", "properties": {"x": {"type": "string", "pattern": "^(?!a).*(?<=b)$", "format": "unheard-of"}}},
    {
        "type": "object",
        "patternProperties": {"^x-": {"type": "number"}},
        "minProperties": 1,
        "not": {"required": ["q"]},
    },
)
BUILTIN: tuple[Json, ...] = (
    {"type": "bash_20250124", "name": "bash"},
    {"type": "text_editor_20250124", "name": "str_replace_editor"},
    {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool", "max_characters": 9000},
    {"type": "memory_20250818", "name": "memory"},
    {"type": "computer_20251124", "name": "computer", "display_width_px": 800, "display_height_px": 600},
    {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"},
    {"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-5-5"},
)
PLACEHOLDER = "DeferredToolPlaceholder"
NAMES = ("get_weather", "Bash", "mcp__people__greet", "a-b_c", "x" * 128, "ToolSearch")


@st.composite
def tool_lists(draw: st.DrawFn) -> list[Json]:
    """No two of one name."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=4))
    custom = st.fixed_dictionaries(
        {"input_schema": st.sampled_from(SCHEMAS)},
        optional={
            "type": st.just("custom") | st.none(),
            "description": words,
            "cache_control": cache,
            "strict": st.booleans() | st.none(),
            "defer_loading": st.sampled_from([False, True, False]),
            "allowed_callers": st.just(["direct"]),
            "input_examples": st.lists(inputs, max_size=2),
            "eager_input_streaming": st.just(True),
        },
    )
    tools = [{"name": name, **draw(custom)} for name in names]
    if draw(st.integers(0, 2)) == 0:
        tools += draw(
            st.lists(st.sampled_from(BUILTIN), unique_by=lambda tool: str(tool["name"]), min_size=1, max_size=2)
        )
    if draw(st.integers(0, 5)) == 0:
        tools.append({"name": PLACEHOLDER, "input_schema": {"type": "object"}, "defer_loading": True})
    return draw(st.permutations(tools))


def callable_names(tools: Sequence[Json]) -> list[str]:
    """Tools that may be called: Anthropic's own search and advice are not, nor what nobody has loaded."""
    hidden = ("tool_search_tool", "advisor")
    searches = any(str(tool.get("type")).startswith("tool_search_tool") for tool in tools)
    return [
        tool["name"]
        for tool in tools
        if not str(tool.get("type")).startswith(hidden)
        and tool["name"] != PLACEHOLDER
        and (searches or not tool.get("defer_loading"))
    ]


# Conversations


@st.composite
def conversations(draw: st.DrawFn, tools: Sequence[Json], say: str) -> list[Json]:
    """Turns as clients write them: every call is answered, side text stands beside results, system turns come between.

    `say`: what has to stand in the last user turn.
    """
    names = [tool["name"] for tool in tools] or ["gone"]
    messages: list[Json] = []
    for number in range(draw(st.integers(0, 4))):
        messages.append({"role": "user", "content": draw(_user_content())})
        if draw(st.integers(0, 4)) == 0:
            messages.append(draw(_system_turn(tools)))
        uses = [f"toolu_{number}_{index}" for index in range(draw(st.integers(0, 3)))]
        messages.append({"role": "assistant", "content": draw(_assistant_content(uses, names, number))})
        if uses:
            messages.append({"role": "user", "content": draw(_results(uses, tools))})
    last = draw(_user_content())
    blocks = [{"type": "text", "text": last}] if isinstance(last, str) else last
    messages.append({"role": "user", "content": [*blocks, {"type": "text", "text": f"Go on. {say}"}]})
    if draw(st.integers(0, 3)) == 0:
        messages.append(draw(_system_turn(tools)))
    return messages


def _user_content() -> st.SearchStrategy[str | list[Json]]:
    return words | st.lists(text | text | image | document | search_result | empty_text, min_size=1, max_size=3)


@st.composite
def _system_turn(draw: st.DrawFn, tools: Sequence[Json]) -> Json:
    turn: Json = {"role": "system", "content": draw(words | st.lists(text, min_size=1, max_size=2))}
    if draw(st.integers(0, 3)) == 0:
        turn["clear_at"] = draw(st.sampled_from(["never", "next_user_message"]))
    if draw(st.integers(0, 3)) == 0:
        turn["output_config"] = {"effort": draw(st.sampled_from(EFFORTS))}
    if isinstance(turn["content"], list) and tools and draw(st.booleans()):
        target = {"type": "tool_reference", "name": tools[0]["name"]}
        turn["content"].append({"type": "tool_addition", "tool": target})
    return turn


@st.composite
def _assistant_content(draw: st.DrawFn, uses: Sequence[str], names: Sequence[str], number: int) -> str | list[Json]:
    if not uses and draw(st.booleans()):
        return draw(words)
    content: list[Json] = draw(st.lists(thinking | redacted, max_size=2))
    content += draw(st.lists(text, max_size=1))
    if draw(st.integers(0, 2)) == 0:
        content += draw(st.sampled_from(server_blocks(number)))
    for use in uses:
        call = {"type": "tool_use", "id": use, "name": draw(st.sampled_from(names)), "input": draw(inputs | odd_inputs)}
        content.append({**call, **draw(optional(caller=st.just({"type": "direct"}), cache_control=cache))})
    return content or [{"type": "text", "text": "Yes."}]


@st.composite
def _results(draw: st.DrawFn, uses: Sequence[str], tools: Sequence[Json]) -> list[Json]:
    reference = st.sampled_from(tools or [{"name": "gone"}]).map(
        lambda tool: {"type": "tool_reference", "tool_name": tool["name"]}
    )
    contents = words | st.just("") | st.lists(in_result | reference if tools else in_result, max_size=3)
    content: list[Json] = []
    for use in draw(st.permutations(list(uses))):
        result = {"type": "tool_result", "tool_use_id": use}
        content.append({**result, **draw(optional(content=contents, is_error=st.booleans(), cache_control=cache))})
    return content + draw(st.lists(text, max_size=1))


# Whole requests


def showcase() -> list[Json]:
    """One request for every block of Anthropic's servers, every tool that clients run themselves, and every schema: as
    it is, strict, forced, and as the form of the answer."""

    def asked(say: str, before: Sequence[Json] = (), **fields: Any) -> Json:
        messages = [{"role": "user", "content": "Hi."}, *before, {"role": "user", "content": f"Go on. {say}"}]
        return {"model": MODELS[0], "max_tokens": 8, "stream": True, "messages": messages, **fields}

    scripted = marker(said("OK.", think="Hm."))
    found = [
        asked(scripted, [{"role": "assistant", "content": [*blocks, {"type": "text", "text": "Found."}]}])
        for blocks in server_blocks(0)
    ]
    found += [asked(scripted, tools=[tool]) for tool in BUILTIN]
    city: Json = {"name": "f", "input_schema": SCHEMAS[2]}
    late = {"role": "system", "content": [{"type": "text", "text": "Now."}], "clear_at": "next_user_message"}
    more = {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "f"}}
    effort = {"role": "system", "content": [], "output_config": {"effort": "low"}}
    found += [
        asked(scripted, [late, {"role": "system", "content": [more]}, effort], tools=[{**city, "defer_loading": True}]),
        asked(scripted, tools=[city], tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
        asked(scripted, tools=[city], tool_choice={"type": "none"}),
        asked("", tools=[city], tool_choice={"type": "any", "disable_parallel_tool_use": True}),
        asked(scripted, context_management={"edits": EDITS[:1] + EDITS[3:]}),
    ]
    for schema in SCHEMAS:
        tool = {"name": "f", "input_schema": schema}
        form = {"type": "json_schema", "schema": schema}
        forced = {"type": "tool", "name": "f"}
        found += [asked(scripted, tools=[tool]), asked(scripted, tools=[{**tool, "strict": True}])]
        found += [asked("", tools=[{**tool, "strict": is_strict}], tool_choice=forced) for is_strict in (True, False)]
        found.append(asked("", output_config={"format": form}))
    return found + [{**body, "stream": False} for body in found[::3]]


EDITS: list[Json] = [
    {"type": "clear_thinking_20251015", "keep": "all"},
    {"type": "clear_thinking_20251015", "keep": {"type": "thinking_turns", "value": 1}},
    {"type": "clear_tool_uses_20250919"},
    {
        "type": "clear_tool_uses_20250919",
        "trigger": {"type": "tool_uses", "value": 1},
        "keep": {"type": "tool_uses", "value": 1},
        "clear_tool_inputs": True,
        "exclude_tools": ["Bash"],
    },
]
edits = st.lists(st.sampled_from(EDITS), max_size=2, unique_by=lambda edit: str(edit["type"]))
others = optional(
    metadata=st.sampled_from([{"user_id": '{"device_id":"d","session_id":"s"}'}, {"user_id": "u"}, {}]),
    temperature=st.sampled_from([0, 0.0, 0.5, 1, 1.0]),
    top_p=st.sampled_from([0, 0.1, 0.999, 1]),
    top_k=st.sampled_from([0, 1, 40, 1000, 2**31]),
    cache_control=cache,
    context_management=st.builds(lambda found: {"edits": found}, edits) | st.none(),
    service_tier=st.sampled_from(["auto", "standard_only"]),
    speed=st.sampled_from(["standard", "fast", None]),
    inference_geo=st.none(),
    container=st.none() | st.just("container_1") | st.just({"id": "container_1"}),
    diagnostics=st.just({"previous_message_id": "msg_1"}) | st.none(),
    mcp_servers=st.just([]),
    fallbacks=st.just("default") | st.just([{"model": "claude-sonnet-4-5"}]),
    fallback_credit_token=st.just("token"),
    billing_policy=st.just({"bill_to": "self"}),
    safeguards=st.just([{"type": "dangerous_tool_use", "classifier_context": {"a": "b"}}]),
    a_field_of_tomorrow=json_values,
)
stop_sequences = st.lists(
    st.sampled_from(
        ["</block>", "\n\nHuman:", "END", "桥", "a b", " x", "x" * 200, "```", "</severity>", "<tool_call>"]
    ),
    max_size=8,
)
systems = (
    words
    | st.just("")
    | st.lists(text, max_size=3)
    | st.just(
        [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.330.abc; cc_entrypoint=sdk-cli;"},
            {"type": "text", "text": "You help.", "cache_control": CACHE},
        ]
    )
)
forms = st.sampled_from([*SCHEMAS, {"enum": ["yes", "no"]}])


@st.composite
def requests(draw: st.DrawFn) -> Json:
    """One valid request. It is scripted unless a grammar rules its answer; then the random model writes it."""
    tools = draw(tool_lists()) if draw(st.integers(0, 9)) > 2 else []
    choices: list[Json] = [{"type": "auto"}, {"type": "none"}, {"type": "any"}]
    choices += [{"type": "tool", "name": name} for name in callable_names(tools)]
    choice = draw(st.sampled_from(choices)) if callable_names(tools) and draw(st.integers(0, 9)) > 3 else None
    if choice is not None and choice["type"] != "none" and draw(st.booleans()):
        choice = {**choice, "disable_parallel_tool_use": draw(st.booleans())}
    form = draw(forms) if draw(st.integers(0, 9)) > 7 else None
    has_grammar = form is not None or (choice is not None and choice["type"] in ("any", "tool"))
    is_scripted = not has_grammar and draw(st.integers(0, 4)) > 0
    mode = draw(st.sampled_from([None, "disabled", "adaptive", "adaptive", "enabled", "between_tools"]))
    is_prefill = mode in (None, "disabled", "between_tools") and form is None and draw(st.integers(0, 9)) == 0
    answer = said("OK.", think="Hm." if mode in ("adaptive", "enabled") else None)
    messages = draw(conversations(tools, marker(answer) if is_scripted else ""))
    if is_prefill and messages[-1]["role"] == "user":
        messages.append({"role": "assistant", "content": draw(st.sampled_from(["{", "The answer is", "<block>"]))})
    body: Json = {"model": draw(st.sampled_from(MODELS)), "messages": messages, **draw(others)}
    body["stream"] = not is_scripted or draw(st.integers(0, 1)) == 1
    small = [8, 2, 1, 0] if mode != "enabled" else []
    body["max_tokens"] = draw(st.sampled_from([*small, 2000, 32_000, 128_000]))
    if mode is not None:
        body["thinking"] = draw(_thinking(mode, body["max_tokens"]))
    body |= draw(optional(system=systems, stop_sequences=stop_sequences))
    if tools or draw(st.integers(0, 1)) == 1:
        body["tools"] = tools
    if choice is not None:
        body["tool_choice"] = choice
    return body | draw(_output(form))


@st.composite
def _thinking(draw: st.DrawFn, mode: str, max_tokens: int) -> Json:
    thinking: Json = {"type": mode}
    if mode == "enabled":
        thinking["budget_tokens"] = draw(st.integers(1024, max_tokens - 1))
    if mode in ("enabled", "adaptive"):
        thinking |= draw(optional(display=st.sampled_from(["summarized", "omitted", "updates"])))
    return thinking


@st.composite
def _output(draw: st.DrawFn, form: Json | None) -> Json:
    config: Json = draw(
        optional(effort=st.sampled_from(EFFORTS), task_budget=st.just({"type": "tokens", "total": 90_000}))
    )
    wanted = {"type": "json_schema", "schema": form}
    if form is not None and draw(st.booleans()):
        return {"output_format": wanted} | ({"output_config": config} if config else {})
    if form is not None:
        config["format"] = wanted
    return {"output_config": config} if config else {}
