"""A logits processor that makes the engine say what a test wrote into the prompt.

Runs inside the engine: `vllm serve … --logits-processors scripted_words:ScriptedWords`, with this folder on its path.
At every step one token is left possible, so that whatever comes after the logits is the real thing: detokenizer,
reasoning and tool parsers, streaming, stop strings, limits, usage.

The words come from a marker in the prompt (`tests.live.vllm.script` writes it): a list of texts of which text i answers
the i-th assistant turn after the marker; after the last one comes `AFTER_LAST`. The last marker wins. Without a marker
the model's own random words come.

A text that a grammar of the request forbids (a forced or strict call, a schema for the answer) makes the engine fail
with a 500. No real model can write such a text.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from transformers import AutoTokenizer
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

AFTER_LAST = "Done."
END = "<|im_end|>"
TURN = "<|im_start|>assistant"
MARKER = re.compile(r"@@SAY:([A-Za-z0-9_=-]+)@@")


class ScriptedWords(AdapterLogitsProcessor):
    """One instance serves every request; what one request shall say is kept in the closure of its own function."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        self._tokenizer = AutoTokenizer.from_pretrained(vllm_config.model_config.tokenizer)
        self._end = self._tokenizer.convert_tokens_to_ids(END)

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: Any) -> Any:
        planned: list[int] | None = None
        is_planned = False

        def leave_one(prompt: list[int] | None, answer: list[int], logits: Any) -> Any:
            nonlocal planned, is_planned
            if not is_planned:
                planned, is_planned = self._plan(prompt), True
            if planned is not None:
                wanted = planned[len(answer)] if len(answer) < len(planned) else self._end
                logits.fill_(float("-inf"))
                logits[wanted] = 0.0
            return logits

        return leave_one

    def _plan(self, prompt: list[int] | None) -> list[int] | None:
        """The tokens of this answer, or None for a prompt without a marker."""
        text = self._tokenizer.decode(prompt or [])
        found = list(MARKER.finditer(text))
        if not found:
            return None
        code = found[-1][1]
        texts = json.loads(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)))
        # The prompt ends with the opening of the turn that is to be written.
        turn = text.count(TURN, found[-1].end()) - 1
        said = texts[turn] if turn < len(texts) else AFTER_LAST
        return [*self._tokenizer(said, add_special_tokens=False)["input_ids"], self._end]
