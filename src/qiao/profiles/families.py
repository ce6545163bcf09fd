"""The families, most specific first: the first pattern that is found wins.

To add one: copy the entry of the nearest relative, change what differs, and give every field that you set a sentence in
`why` with its source (a published template, a model card, an issue, a measurement with version and date). A fact that
nobody looked up stays at its default.

"template" in a reason means the chat template that the publisher ships with the weights; servers may run another one,
and what a server refuses in practice is learned elsewhere and wins.
"""

from __future__ import annotations

from qiao.profiles.profile import HYBRID, NO_SWITCH, SEES, TEXT_ONLY, Profile
from qiao.profiles.qwen import QWEN

_GATHERED = "template gathers all system turns at the head, which changes the prompt's first tokens"
_BY_NAME = "template writes every role by its name, where it stands"
_GLM_IN_PLACE = "template renders <|system|> where it stands"
_SAME_PROMPT = "rendered by the published template with tools and by this form without: the same prompt"
_NO_LIST = "template lists no tools; the list is that of the V3.1 model card, calls and results are the template's"
_KIMI_SECTION = "template: a section of its own for the list; no message reaches the place before the system prompt"
_KIMI_SYSTEM = "You are Kimi, an AI assistant created by Moonshot AI."
_LLAMA_LIST = "template: before the user's first words; its line `Environment: ipython` is out of reach"
_HERMES_OWN = "model card: JSON in <tool_call> tags, whatever model it was made of"
_KIMI_IN_PLACE = "template writes every other role as <|im_system|>NAME where it stands"

DEEPSEEK = (
    Profile(
        family="DeepSeek-R1",
        pattern=r"deepseek-r1",
        system_in_place=False,
        reasoning="always",
        context=131_072,
        dialect="deepseek_v3",
        tool_form="deepseek_v3",
        why={
            "system_in_place": _GATHERED,
            "images": TEXT_ONLY,
            "reasoning": "model card: always thinks",
            "context": "model card: 128K tokens",
            "dialect": "template: <｜tool▁calls▁begin｜>",
            "tool_form": _NO_LIST,
        },
    ),
    Profile(
        family="DeepSeek-V3.1",
        pattern=r"deepseek-v3\.(?P<minor>[12])",
        plain_id="deepseek-v3.{minor}",
        system_in_place=False,
        reasoning="hybrid",
        thinking_kwarg="thinking",
        thinks_by_default=False,
        opens_reasoning=True,
        context=131_072,
        dialect="deepseek_v31",
        tool_form="deepseek_v31",
        why={
            "system_in_place": _GATHERED,
            "images": TEXT_ONLY,
            "reasoning": "model card: thinking and non-thinking by template",
            "thinking_kwarg": "template variable `thinking`, not `enable_thinking` (SGLang docs, vLLM's parser)",
            "thinks_by_default": "template: false when absent",
            "opens_reasoning": "model card: the prompt of the thinking mode ends with <think>",
            "context": "model card: 128K tokens",
            "dialect": "template: <｜tool▁calls▁begin｜> without code fence",
            "tool_form": "model card, tool call: the list in the system prompt",
        },
    ),
    Profile(
        family="DeepSeek-V3",
        pattern=r"deepseek-v3",
        plain_id="deepseek-v3",
        system_in_place=False,
        context=131_072,
        dialect="deepseek_v3",
        tool_form="deepseek_v3",
        why={
            "system_in_place": _GATHERED,
            "images": TEXT_ONLY,
            "reasoning": NO_SWITCH,
            "context": "model card: 128K tokens",
            "dialect": "template: <｜tool▁calls▁begin｜>",
            "tool_form": _NO_LIST,
        },
    ),
)

GLM = (
    Profile(
        family="GLM vision",
        pattern=r"glm-4\.[56]v",
        images=True,
        reasoning="hybrid",
        thinking_kwarg="enable_thinking",
        context=131_072,
        dialect="glm45",
        tool_form="glm45",
        why={
            "system_in_place": _GLM_IN_PLACE,
            "images": SEES,
            "reasoning": HYBRID,
            "thinking_kwarg": HYBRID,
            "context": "model card: 128K tokens",
            "dialect": "template: <arg_key>, <arg_value> in <tool_call>",
            "tool_form": _SAME_PROMPT,
        },
    ),
    Profile(
        family="GLM-4.7 and later",
        pattern=r"glm-(?:4\.7|5)",
        reasoning="hybrid",
        thinking_kwarg="enable_thinking",
        opens_reasoning=True,
        resend="keep",
        keep_kwarg=("clear_thinking", False),
        context=202_752,
        dialect="glm45",
        tool_form="glm47",
        why={
            "system_in_place": _GLM_IN_PLACE,
            "images": TEXT_ONLY,
            "reasoning": HYBRID,
            "thinking_kwarg": HYBRID,
            "opens_reasoning": "rendered with the published template: the prompt ends with <think>",
            "resend": "publisher's guide: return reasoning unmodified in agent work; better and more cache hits",
            "keep_kwarg": "template keeps reasoning when `clear_thinking` is defined and false",
            "context": "config.json: 202,752 tokens",
            "dialect": "template: <arg_key>, <arg_value> in <tool_call>",
            "tool_form": _SAME_PROMPT,
        },
    ),
    Profile(
        family="GLM-4.5",
        pattern=r"glm-4\.[56]",
        reasoning="hybrid",
        thinking_kwarg="enable_thinking",
        context=131_072,
        dialect="glm45",
        tool_form="glm45",
        why={
            "system_in_place": _GLM_IN_PLACE,
            "images": TEXT_ONLY,
            "reasoning": HYBRID,
            "thinking_kwarg": HYBRID,
            "context": "model card: 128K tokens (4.6: 200K)",
            "dialect": "template: <arg_key>, <arg_value> in <tool_call>",
            "tool_form": _SAME_PROMPT,
        },
    ),
)

# Before the models they were made of: their names often hold those as well (`Hermes-3-Llama-3.1-8B`).
HERMES = (
    Profile(
        family="Hermes 4",
        pattern=r"hermes-?4",
        reasoning="hybrid",
        thinking_kwarg="thinking",
        thinks_by_default=False,
        dialect="hermes",
        why={
            "system_in_place": _BY_NAME,
            "images": TEXT_ONLY,
            "reasoning": "model card: hybrid, <think> when asked for",
            "thinking_kwarg": "model card: template variable `thinking`",
            "thinks_by_default": "model card: thinks when `thinking` is true, or a system prompt asks for it",
            "dialect": _HERMES_OWN,
        },
    ),
    Profile(
        family="Hermes",
        pattern=r"hermes",
        dialect="hermes",
        why={
            "system_in_place": _BY_NAME,
            "images": TEXT_ONLY,
            "reasoning": NO_SWITCH,
            "dialect": _HERMES_OWN,
        },
    ),
)

OTHERS = (
    Profile(
        family="Kimi-K2.5",
        pattern=r"kimi-k2\.[5-9]",
        images=True,
        reasoning="hybrid",
        thinking_kwarg="thinking",
        resend="send",
        context=262_144,
        dialect="kimi_k2",
        tool_form="kimi_k2",
        default_system=_KIMI_SYSTEM,
        why={
            "system_in_place": _KIMI_IN_PLACE,
            "images": SEES,
            "reasoning": "model card: thinking and instant mode",
            "thinking_kwarg": "vLLM's kimi_k2 reasoning parser reads `thinking`, true when absent",
            "resend": "trained to work on with its own notes between tool calls; the template drops older ones",
            "context": "vLLM recipe: 262,144 tokens",
            "dialect": "template: <|tool_calls_section_begin|>",
            "tool_form": _KIMI_SECTION,
            "default_system": "template: the words it begins with",
        },
    ),
    Profile(
        family="Kimi-K2 Thinking",
        pattern=r"kimi-k2.*thinking",
        plain_id="kimi-k2-thinking",
        reasoning="always",
        resend="send",
        context=262_144,
        dialect="kimi_k2",
        tool_form="kimi_k2",
        default_system=_KIMI_SYSTEM,
        why={
            "system_in_place": _KIMI_IN_PLACE,
            "images": TEXT_ONLY,
            "reasoning": "model card: thinking model",
            "resend": "trained to work on with its own notes between tool calls; the template drops older ones",
            "context": "model card: 256K tokens",
            "dialect": "template: <|tool_calls_section_begin|>",
            "tool_form": _KIMI_SECTION,
            "default_system": "template: the words it begins with",
        },
    ),
    Profile(
        family="Kimi-K2",
        pattern=r"kimi-k2",
        plain_id="kimi-k2",
        context=131_072,
        dialect="kimi_k2",
        tool_form="kimi_k2",
        default_system=_KIMI_SYSTEM,
        why={
            "system_in_place": _KIMI_IN_PLACE,
            "images": TEXT_ONLY,
            "reasoning": NO_SWITCH,
            "context": "model card: 128K tokens (0905: 256K)",
            "dialect": "template: <|tool_calls_section_begin|>",
            "tool_form": _KIMI_SECTION,
            "default_system": "template: the words it begins with",
        },
    ),
    Profile(
        family="gpt-oss",
        pattern=r"gpt-oss(?:-(?P<size>\d+b))?",
        plain_id="gpt-oss-{size}",
        system_in_place=False,
        reasoning="always",
        effort=("low", "medium", "high"),
        resend="send",
        context=131_072,
        dialect="harmony",
        why={
            "system_in_place": "template reads a system or developer message at the head only",
            "images": TEXT_ONLY,
            "reasoning": "model card: always reasons, three efforts",
            "effort": "model card: low, medium, high",
            "resend": "harmony guide: the analysis of a tool loop has to be returned while the loop runs",
            "context": "model card: 131,072 tokens",
            "dialect": "harmony format",
        },
    ),
    Profile(
        family="Llama 4",
        pattern=r"llama-?4-(?P<kind>scout|maverick)",
        plain_id="llama-4-{kind}",
        images=True,
        dialect="pythonic",
        why={
            "system_in_place": _BY_NAME,
            "images": SEES,
            "reasoning": NO_SWITCH,
            "dialect": "model card: a list of Python calls; vLLM's parser and template llama4_pythonic",
        },
    ),
    Profile(
        family="Llama 3.2 Vision",
        pattern=r"llama-?3\.2-(?P<size>\d+b)-vision",
        plain_id="llama-3.2-{size}-vision",
        images=True,
        context=131_072,
        dialect="llama3_json",
        tool_form="llama3",
        why={
            "system_in_place": _BY_NAME,
            "images": SEES,
            "reasoning": NO_SWITCH,
            "context": "model card: 128K tokens",
            "dialect": "template: a bare JSON object with name and parameters",
            "tool_form": _LLAMA_LIST,
        },
    ),
    Profile(
        family="Llama 3.1 and later",
        pattern=r"llama-?3\.(?P<minor>[123])-(?P<size>\d+b)",
        plain_id="llama-3.{minor}-{size}",
        context=131_072,
        dialect="llama3_json",
        tool_form="llama3",
        why={
            "system_in_place": _BY_NAME,
            "images": TEXT_ONLY,
            "reasoning": NO_SWITCH,
            "context": "model card: 128K tokens",
            "dialect": "template: a bare JSON object with name and parameters",
            "tool_form": _LLAMA_LIST,
        },
    ),
    Profile(
        family="Llama 3",
        pattern=r"llama-?3-(?P<size>\d+b)",
        plain_id="llama-3-{size}",
        context=8_192,
        why={
            "system_in_place": _BY_NAME,
            "images": TEXT_ONLY,
            "reasoning": NO_SWITCH,
            "context": "model card: 8K tokens",
        },
    ),
    Profile(
        family="Mistral",
        pattern=r"mistral|mixtral|ministral|devstral|codestral|pixtral",
        system_in_place=False,
        images=None,
        dialect="mistral",
        why={
            "system_in_place": 'template raises "After the optional system message, conversation roles must alternate"',
            "images": "differs by release (Small 3.1 and later see, Large 2 and Nemo do not)",
            "reasoning": NO_SWITCH,
            "dialect": "template: [TOOL_CALLS]",
        },
    ),
    Profile(
        family="SmolLM2",
        pattern=r"smollm2(?:-(?P<size>\d+(?:\.\d+)?[mb]))?",
        plain_id="smollm2-{size}",
        context=8_192,
        why={
            "system_in_place": "ChatML template writes every role by its name, where it stands",
            "images": TEXT_ONLY,
            "reasoning": NO_SWITCH,
            "context": "llama.context_length of the gguf: 8192 (embedded-engine measurement)",
        },
    ),
)

FAMILIES: tuple[Profile, ...] = HERMES + QWEN + DEEPSEEK + GLM + OTHERS

UNKNOWN = Profile(
    family="unknown",
    pattern="",
    images=None,
    reasoning="hybrid",
    thinking_kwarg="enable_thinking",
    why={
        "system_in_place": "most templates take it; an engine that refuses is learned and folded for from then on",
        "images": "an engine that cannot see refuses, which is healed; a note in place of a picture never is",
        "reasoning": "the commonest switch; a template that does not know the variable ignores it",
        "thinking_kwarg": "the commonest switch; a template that does not know the variable ignores it",
        "effort": "nothing is sent: a template may raise on a word it does not know, as Qwen3.8's does on high",
    },
)
