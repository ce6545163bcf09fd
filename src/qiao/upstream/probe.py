"""What an engine does that it does not tell: found out by a few tiny requests (a few tokens each) and its tokenizer.

Nothing here is needed for an answer: a request heals itself. It spares the first user that healing, it knows whether a
chat template opens the reasoning itself, and it tells people why the gateway works as it does (`GET /readyz`).
"""

from __future__ import annotations

import msgspec

from qiao.core.conversation import Conversation, Text, Tool, ToolChoice, Turn
from qiao.core.openai.target import Target
from qiao.policies import guided, refusal, remedies, text_mode
from qiao.policies.quirks import Quirks, Remedy, features
from qiao.profiles import Profile
from qiao.upstream.abilities import Abilities, abilities, template_dialect
from qiao.upstream.asking import REQUEST_ID, Asker, Prompt, Said
from qiao.upstream.client import Client

__all__ = ["REQUEST_ID", "Findings", "probe"]

_TOOL = Tool("noop", "Does nothing. Never call it.")
# One token may be no text at all, and then nobody knows whether it was a thought.
_ANSWER_TOKENS = 8
_FIELDS = ("reasoning", "reasoning_content")
_TAIL = 60
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
    * `template_dialect`: how its chat template writes calls, a name of `core.dialects`.
    * `abilities`: what it can do besides.
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
    template_dialect: str | None = None
    abilities: Abilities = Abilities()

    @property
    def leaves_calls_alone(self) -> bool:
        """Calls can be read from the text although it has a parser. Proven for the dialect that was probed."""
        return self.tool_parser is True and self.renders_tools is True and self.interferes is False

    @property
    def leaves_reasoning_open(self) -> bool | None:
        """Whether an answer begins with reasoning that nothing marks."""
        if self.splits_reasoning:
            return False
        if self.opens_reasoning is None or (self.opens_reasoning and self.splits_reasoning is None):
            return None
        return self.opens_reasoning


async def probe(client: Client, prefix: str, target: Target, profile: Profile) -> tuple[Findings, Remedy | None]:
    """Ask. The remedy is the lesson of a missing parser. Raises `Fault` when the engine does not answer."""
    asker = Asker(client, prefix, target)
    asked = _conversation(target, profile)
    findings, remedy = await _parser(asker, asked)
    if findings.tool_parser is None:
        return findings, remedy
    bare = msgspec.structs.replace(asked, tools=())
    prompt = await asker.prompt(bare)
    template = await template_dialect(asker, bare, prompt)
    findings = msgspec.structs.replace(findings, template_dialect=template)
    if remedy is None or remedy.quirk != "no_tools":
        findings = await _as_text(asker, asked, prompt, profile, findings)
    return msgspec.structs.replace(findings, abilities=await abilities(asker, bare, prompt)), remedy


async def _as_text(asker: Asker, asked: Conversation, prompt: Prompt, profile: Profile, findings: Findings) -> Findings:
    """What becomes of tools, reasoning and calls where no call is to be made, so that they are read from the text."""
    without_parser = msgspec.structs.replace(asked, tool_choice=ToolChoice(mode="none"), max_tokens=_ANSWER_TOKENS)
    said = await asker.chat(without_parser)
    if said.status != 200:
        return findings
    findings = _reasoning(said, prompt.text, findings)
    with_tools, count = said.count("prompt_tokens"), prompt.count
    if count is None:
        count = (await asker.chat(msgspec.structs.replace(asked, tools=()))).count("prompt_tokens")
    if with_tools and count:
        findings = msgspec.structs.replace(findings, renders_tools=with_tools > count)
    if profile.opens_reasoning and findings.splits_reasoning is False and findings.opens_reasoning is None:
        findings = await _opens(asker, without_parser, with_tools, findings)
    if asker.target.flavor == "vllm":
        dialect = text_mode.dialect_of(profile, findings.template_dialect)
        findings = await _structure(asker, without_parser, dialect, findings)
    return findings


def _conversation(target: Target, profile: Profile) -> Conversation:
    extras: dict[str, msgspec.Raw] = {}
    if profile.reasoning == "hybrid" and profile.thinking_kwarg is not None and target.template_kwargs:
        extras["chat_template_kwargs"] = msgspec.Raw(msgspec.json.encode({profile.thinking_kwarg: True}))
    turn = Turn("user", (Text("Hi"),))
    return Conversation(model=target.model, turns=(turn,), tools=(_TOOL,), max_tokens=1, extras=extras)


async def _parser(asker: Asker, asked: Conversation) -> tuple[Findings, Remedy | None]:
    """Whether tools are taken as they are."""
    if asker.target.flavor == "sglang":
        told = await asker.told("/get_server_info")
        # Without one it takes tools all the same, and leaves the calls in the text.
        if "tool_call_parser" in told and not told["tool_call_parser"]:
            return Findings(tool_parser=False, reason="SGLang was started without --tool-call-parser"), None
    said = await asker.chat(asked)
    if said.status == 200:
        return Findings(tool_parser=True), None
    refused = refusal.read(said.status, said.raw)
    remedy = remedies.find(refused.text, refused.status, used=features(asked), quirks=Quirks())
    if remedy is None or remedy.quirk not in ("no_tool_parser", "no_tools"):
        return Findings(reason=refused.text), None
    renders = False if remedy.quirk == "no_tools" else None
    return Findings(tool_parser=False, reason=refused.text, renders_tools=renders), remedy


def _reasoning(said: Said, prompt: str | None, findings: Findings) -> Findings:
    """Who opens the reasoning and who splits it off, by the beginning of an answer and the end of its prompt."""
    opens = None
    if prompt is not None:
        end = prompt[-_TAIL:]
        opens = end.rfind("<think>") > end.rfind("</think>")
    message = said.message
    if message is None:
        return msgspec.structs.replace(findings, opens_reasoning=opens)
    content = str(message.get("content") or "")
    splits = True if any(message.get(name) for name in _FIELDS) else False if content else None
    if opens is None and content.lstrip().startswith("<think>"):
        opens = False
    return msgspec.structs.replace(
        findings,
        reasoning_field=next((name for name in _FIELDS if name in message), None),
        splits_reasoning=splits,
        opens_reasoning=opens,
    )


async def _opens(asker: Asker, asked: Conversation, tokens: int, findings: Findings) -> Findings:
    """Where the prompt cannot be seen, and the family's template opens the reasoning: whether this one does.

    Such a template closes it again where thinking is switched off, in more `tokens`. As many say nothing: the switch
    may not reach it, and then nobody knows whether there are thoughts.
    """
    said = await asker.chat(msgspec.structs.replace(asked, extras=_quiet(asked), max_tokens=1))
    closes = tokens > 0 and said.count("prompt_tokens") > tokens
    return msgspec.structs.replace(findings, opens_reasoning=True) if closes else findings


def _quiet(asked: Conversation) -> dict[str, msgspec.Raw]:
    """Its extras with thinking switched off."""
    extras = dict(asked.extras)
    if "chat_template_kwargs" in extras:
        switched = msgspec.json.decode(extras["chat_template_kwargs"], type=dict[str, bool])
        extras["chat_template_kwargs"] = msgspec.Raw(msgspec.json.encode(dict.fromkeys(switched, False)))
    return extras


async def _structure(asker: Asker, asked: Conversation, dialect: str, findings: Findings) -> Findings:
    """With what becomes of a call that a structural tag enforces."""
    dialect = dialect if guided.can_guide(dialect) else text_mode.DEFAULT_DIALECT
    structure = guided.must_call(dialect, (_TOOL,), refused=frozenset(), one=True, reasoning=None)
    said = await asker.chat(
        msgspec.structs.replace(asked, structure=structure, extras=_quiet(asked), max_tokens=_CALL_TOKENS)
    )
    if said.status != 200:
        return msgspec.structs.replace(findings, structural_tags=False if said.is_refused else None)
    message = said.message
    if message is None:
        return findings
    if message.get("tool_calls"):
        return msgspec.structs.replace(findings, structural_tags=True, interferes=True)
    content, beginning = str(message.get("content") or ""), guided.beginning(dialect, _TOOL)
    # Under a grammar a model may well write letter by letter, and not come to the end of it.
    begins = len(content) >= _FEWEST and (content.startswith(beginning) or beginning.startswith(content))
    if not begins and any(message.get(name) for name in _FIELDS):
        return findings  # a model that cannot but think; the grammar would begin behind it
    if not content.strip() and said.count("completion_tokens") >= _FEWEST:
        return msgspec.structs.replace(findings, interferes=True, eats=True)
    return msgspec.structs.replace(findings, structural_tags=begins, interferes=False if begins else None)
