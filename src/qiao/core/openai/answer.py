"""A whole answer in OpenAI's shape, and the parts (usage, finish reason) that the stream shares with it.

Reasoning has no field in OpenAI's own protocol. It is sent under both names that clients read, since each has readers
that know no other: `reasoning_content` (DeepSeek's; Cline, Qwen Code, LiteLLM, Dify, LangChain) and `reasoning`
(OpenRouter's, and vLLM's since 0.16). Clients that know both take one of them, as vLLM 0.11 to 0.15 taught them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from qiao.core.events import Finished, FinishReason, Usage
from qiao.core.fold import Answer, CallBlock, ReasoningBlock, TextBlock
from qiao.core.json_text import encode_json
from qiao.core.openai import free_text
from qiao.core.openai.free_text import Form

_FINISH_REASONS: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "stop_sequence": "stop",
    "context": "length",
}


class Frame(msgspec.Struct, frozen=True):
    """What an answer says beside its content.

    * `completion_id`: `chatcmpl-…`; `model`: the name the client asked for; `created`: Unix time in seconds.
    * `prompt_estimate`: tokens to report for the prompt if the engine does not say.
    * `usage_in_stream`: the client wants a last chunk with the tokens.
    * `show_reasoning`: False leaves reasoning out.
    * `free_text`: the tools whose calls hold plain text.
    """

    completion_id: str
    model: str
    created: int
    prompt_estimate: int = 0
    usage_in_stream: bool = False
    show_reasoning: bool = True
    free_text: dict[str, Form] = {}


def usage_object(usage: Usage | None, frame: Frame, *, output_estimate: int) -> dict[str, Any]:
    """`prompt_tokens` includes what came from the cache, as engines count it."""
    usage = usage or Usage()
    prompt = frame.prompt_estimate if usage.prompt is None else usage.prompt
    completion = output_estimate if usage.completion is None else usage.completion
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "created_cache_tokens": usage.created},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning or 0},
    }


def finish_fields(finished: Finished) -> dict[str, Any]:
    """`finish_reason`, and vLLM's `stop_reason`: the stop string that matched."""
    return {"finish_reason": _FINISH_REASONS[finished.reason], "stop_reason": finished.stop_sequence}


def call_object(call_id: str, name: str, arguments: str, frame: Frame) -> dict[str, Any]:
    """One of `tool_calls`; `arguments` is JSON text."""
    form = frame.free_text.get(name)
    if form is not None:
        return free_text.call_object(call_id, name, arguments, form)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def encode(answer: Answer, frame: Frame, *, output_estimate: int = 0) -> bytes:
    """The JSON body of a finished answer. `answer.fault` must be None: a fault is an error body, not a completion."""
    finished = answer.finish or Finished("stop")
    completion: dict[str, Any] = {
        "id": frame.completion_id,
        "object": "chat.completion",
        "created": frame.created,
        "model": frame.model,
        "choices": [{"index": 0, "message": _message(answer, frame), "logprobs": None, **finish_fields(finished)}],
        "usage": usage_object(answer.usage, frame, output_estimate=output_estimate),
    }
    return encode_json(completion)


def _message(answer: Answer, frame: Frame) -> dict[str, Any]:
    """The protocol has one text and one list of calls: pieces are joined as a client joins those of a stream."""
    text = "".join(block.text for block in answer.blocks if isinstance(block, TextBlock))
    thought = "".join(block.text for block in answer.blocks if isinstance(block, ReasoningBlock))
    calls = [
        call_object(block.id, block.name, block.arguments, frame)
        for block in answer.blocks
        if isinstance(block, CallBlock)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
    if thought and frame.show_reasoning:
        message |= {"reasoning_content": thought, "reasoning": thought}
    if calls:
        message["tool_calls"] = calls
    return message
