"""What an engine does that it does not tell: found out by a few tiny requests (a few tokens each) and its tokenizer.

Nothing here is needed for an answer: a request heals itself. It spares the first user that healing, it knows whether a
chat template opens the reasoning itself, and it tells people why the gateway works as it does (`GET /readyz`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from qiao.core.conversation import Conversation, Text, Tool, ToolChoice, Turn
from qiao.core.openai import request as openai_request
from qiao.core.openai.target import Target
from qiao.policies import guided, refusal, remedies, text_mode
from qiao.policies.quirks import Quirks, Remedy, features
from qiao.profiles import Profile
from qiao.upstream.client import Client

REQUEST_ID = "qiao-probe"
"""The `X-Request-Id` of what is asked here, for whoever reads the engine's log."""

_TIMEOUT = 60.0
_TOOL = Tool("noop", "Does nothing. Never call it.")
# One token may be no text at all, and then nobody knows whether it was a thought.
_ANSWER_TOKENS = 8
_FIELDS = ("reasoning", "reasoning_content")
_TAIL = 12
_CALL_TOKENS = 32
_FEWEST = 5


class Findings(msgspec.Struct, frozen=True):
    """What the probe found; None where it could not tell.

    * `tool_parser`: the engine reads tool calls itself. `reason`: its words where it does not.
    * `renders_tools`: with `tool_choice: "none"` the tools still stand in the prompt. Where they do not, they are
      written into the text.
    * `structural_tags`: answers can be bound by them.
    * `interferes`: a call that was made in the text did not come back as text, though the engine was not to read it.
      `eats`: it did not come at all (vLLM 0.32 with a parser of its newer kind, as `qwen3_coder`).
    * `opens_reasoning`: the chat template writes the opening tag of the reasoning.
    * `splits_reasoning`: the engine splits reasoning off the text. `reasoning_field`: where it would put it.
    """

    tool_parser: bool | None = None
    reason: str = ""
    renders_tools: bool | None = None
    structural_tags: bool | None = None
    interferes: bool | None = None
    eats: bool = False
    opens_reasoning: bool | None = None
    splits_reasoning: bool | None = None
    reasoning_field: str | None = None

    @property
    def leaves_calls_alone(self) -> bool:
        """Calls can be read from the text although it has a parser. Proven for the dialect that was probed."""
        return self.tool_parser is True and self.renders_tools is True and self.interferes is False

    @property
    def leaves_reasoning_open(self) -> bool | None:
        """Whether an answer begins with reasoning that nothing marks."""
        if self.opens_reasoning is None or (self.opens_reasoning and self.splits_reasoning is None):
            return None
        return self.opens_reasoning and not self.splits_reasoning


async def probe(
    client: Client, prefix: str, target: Target, profile: Profile, dialect: str
) -> tuple[Findings, Remedy | None]:
    """Ask. `dialect`: how calls are going to be read where the engine does not.

    The remedy is the lesson of a missing parser. Raises `Fault` when the engine does not answer.
    """
    asked = _conversation(target, profile)
    findings, remedy = await _parser(client, prefix, asked, target)
    if findings.tool_parser is None or (remedy is not None and remedy.quirk == "no_tools"):
        return findings, remedy
    # Calls are read from the text of such an answer.
    without_parser = msgspec.structs.replace(asked, tool_choice=ToolChoice(mode="none"), max_tokens=_ANSWER_TOKENS)
    status, body, _ = await _post(client, prefix, without_parser, target)
    if status != 200 or body is None:
        return findings, remedy
    choices = body.get("choices")
    message = choices[0].get("message") if isinstance(choices, list) and choices else None
    if isinstance(message, dict):
        field = next((name for name in _FIELDS if name in message), None)
        thought = any(message.get(name) for name in _FIELDS)
        said = bool(message.get("content"))
        splits = True if thought else False if said else None
        findings = msgspec.structs.replace(findings, reasoning_field=field, splits_reasoning=splits)
    bare = msgspec.structs.replace(asked, tools=())
    tokenized = await _tokenized(client, bare, target)
    with_tools, count = _prompt_tokens(body), tokenized.get("count")
    if not isinstance(count, int):
        count = _prompt_tokens((await _post(client, prefix, bare, target))[1])
    if with_tools is not None and count is not None:
        findings = msgspec.structs.replace(findings, renders_tools=with_tools > count)
    findings = await _structure(client, prefix, without_parser, target, dialect, findings)
    tail = tokenized.get("token_strs")
    if isinstance(tail, list) and all(isinstance(piece, str) for piece in tail):
        end = "".join(tail[-_TAIL:])
        is_open = end.rfind("<think>") > end.rfind("</think>")
        findings = msgspec.structs.replace(findings, opens_reasoning=is_open)
    return findings, remedy


def _conversation(target: Target, profile: Profile) -> Conversation:
    extras: dict[str, msgspec.Raw] = {}
    if profile.reasoning == "hybrid" and profile.thinking_kwarg is not None and target.template_kwargs:
        extras["chat_template_kwargs"] = msgspec.Raw(msgspec.json.encode({profile.thinking_kwarg: True}))
    turn = Turn("user", (Text("Hi"),))
    return Conversation(model=target.model, turns=(turn,), tools=(_TOOL,), max_tokens=1, extras=extras)


async def _parser(client: Client, prefix: str, asked: Conversation, target: Target) -> tuple[Findings, Remedy | None]:
    """Whether tools are taken as they are."""
    status, _, raw = await _post(client, prefix, asked, target)
    if status == 200:
        return Findings(tool_parser=True), None
    refused = refusal.read(status, raw)
    remedy = remedies.find(refused.text, refused.status, used=features(asked), quirks=Quirks())
    if remedy is None or remedy.quirk not in ("no_tool_parser", "no_tools"):
        return Findings(reason=refused.text), None
    renders = False if remedy.quirk == "no_tools" else None
    return Findings(tool_parser=False, reason=refused.text, renders_tools=renders), remedy


async def _structure(
    client: Client, prefix: str, asked: Conversation, target: Target, dialect: str, findings: Findings
) -> Findings:
    """With what becomes of a call that a structural tag enforces."""
    dialect = dialect if guided.can_guide(dialect) else text_mode.DEFAULT_DIALECT
    structure = guided.must_call(dialect, (_TOOL,), refused=frozenset(), one=True, reasoning=None)
    extras = dict(asked.extras)
    if "chat_template_kwargs" in extras:
        switched = msgspec.json.decode(extras["chat_template_kwargs"], type=dict[str, bool])
        extras["chat_template_kwargs"] = msgspec.Raw(msgspec.json.encode(dict.fromkeys(switched, False)))
    bound = msgspec.structs.replace(asked, structure=structure, extras=extras, max_tokens=_CALL_TOKENS)
    status, body, _ = await _post(client, prefix, bound, target)
    if status != 200 or body is None:
        return msgspec.structs.replace(findings, structural_tags=False if status in (400, 422) else None)
    choices = body.get("choices")
    message = choices[0].get("message") if isinstance(choices, list) and choices else None
    if not isinstance(message, dict):
        return findings
    if message.get("tool_calls"):
        return msgspec.structs.replace(findings, structural_tags=True, interferes=True)
    content, beginning = str(message.get("content") or ""), guided.beginning(dialect, _TOOL)
    # Under a grammar a model may well write letter by letter, and not come to the end of it.
    begins = len(content) >= _FEWEST and (content.startswith(beginning) or beginning.startswith(content))
    if not begins and any(message.get(name) for name in _FIELDS):
        return findings  # a model that cannot but think; the grammar would begin behind it
    if not content.strip() and _count(body, "completion_tokens") >= _FEWEST:
        return msgspec.structs.replace(findings, interferes=True, eats=True)
    return msgspec.structs.replace(findings, structural_tags=begins, interferes=False if begins else None)


async def _post(
    client: Client, prefix: str, asked: Conversation, target: Target
) -> tuple[int, dict[str, Any] | None, bytes]:
    body = openai_request.encode(asked, target)
    reply = await client.post_whole(
        f"{prefix}/chat/completions", body, timeout=_TIMEOUT, headers={"X-Request-Id": REQUEST_ID}
    )
    decoded = reply.json()
    return reply.status, decoded if isinstance(decoded, dict) else None, reply.body


def _prompt_tokens(body: dict[str, Any] | None) -> int | None:
    return _count(body, "prompt_tokens") or None


def _count(body: dict[str, Any] | None, name: str) -> int:
    """A number of the usage; 0 where it is not told."""
    usage = (body or {}).get("usage")
    tokens = usage.get(name) if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) else 0


async def _tokenized(client: Client, asked: Conversation, target: Target) -> dict[str, Any]:
    body = msgspec.json.decode(openai_request.encode_tokenize(asked, target), type=dict[str, msgspec.Raw])
    body["return_token_strs"] = msgspec.Raw(b"true")
    reply = await client.post_whole("/tokenize", msgspec.json.encode(body), timeout=_TIMEOUT)
    decoded = reply.json() if reply.status == 200 else None
    return decoded if isinstance(decoded, dict) else {}
