"""The count of the prefix benchmark, without an engine: what is reused, what breaks, and what the ideal is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.claude_session import Recording, Request, Turn, load, marker, save, scripts, vllm_marker
from bench.prefix import Candidate, Outcome, candidates, page, said
from bench.prefix_cache import BLOCK, Counted, PrefixCache, count, shared
from bench.prefix_ideal import ideal

from tests.fakes import script


def test_blocks_are_reused_from_the_front_only() -> None:
    cache = PrefixCache()
    prompt = list(range(100))
    assert cache.prefill(prompt, []) == 100
    assert cache.prefill([*prompt, 1, 2, 3], []) == 103 - 96
    assert cache.prefill([7, *prompt], []) == 101, "moved by one token, nothing is the same"
    changed = [*prompt[:40], 0, *prompt[41:]]
    assert cache.prefill(changed, []) == 100 - 32


def test_the_last_token_is_computed_even_if_all_is_known() -> None:
    cache = PrefixCache()
    prompt = list(range(2 * BLOCK))
    cache.prefill(prompt, [])
    assert cache.prefill(prompt, []) == BLOCK


def test_an_answer_is_kept_too() -> None:
    cache = PrefixCache()
    prompt, answer = list(range(40)), list(range(200, 240))
    cache.prefill(prompt, answer)
    assert cache.prefill([*prompt, *answer, 5, 6], []) == 82 - 80


def test_what_a_request_lost_of_its_conversation() -> None:
    one, two, other = list(range(50)), [*range(50), 60, 61], [9, *range(50)]
    counted = count([one, other, two, one[:30]], [[]] * 4, [0, 1, 0, 0])
    assert [each.lost for each in counted] == [0, 0, 0, 22]
    assert [each.prompt for each in counted] == [50, 51, 52, 30]
    assert shared([1, 2, 3], [1, 2]) == 2
    assert shared([1, 2], [3]) == 0


def tool(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "description": f"{name}.", "input_schema": {"type": "object"}, **fields}


def test_the_ideal_keeps_the_first_list_and_cuts_the_last_request() -> None:
    use = {"type": "tool_use", "id": "t1", "name": "ToolSearch", "input": {"b": 1, "a": 2}}
    found = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "tool_reference", "tool_name": "Late"}]}
    think = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Go."}]},
        {"role": "assistant", "content": [think, use]},
        {"role": "user", "content": [found, {"type": "text", "text": "aside"}]},
    ]
    system = [{"type": "text", "text": "x-anthropic-billing-header: a;"}, {"type": "text", "text": "You are."}]
    begun = [tool("ToolSearch"), tool("DeferredToolPlaceholder", defer_loading=True)]
    requests = [
        {"model": "m", "system": system, "tools": begun, "messages": messages[:1]},
        {"model": "m", "system": system, "tools": [*begun, tool("Late", defer_loading=True)], "messages": messages},
    ]
    first, second = ideal(requests, "send")
    assert first["tools"] == second["tools"]
    assert [each["function"]["name"] for each in first["tools"]] == ["ToolSearch"]
    assert second["messages"][: len(first["messages"])] == first["messages"]
    assert second["messages"][0] == {"role": "system", "content": "You are."}
    assert second["messages"][2]["reasoning"] == "Hm."
    assert second["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"b": 1, "a": 2}'
    assert '"name": "Late"' in second["messages"][3]["content"]
    assert second["messages"][3]["content"].endswith("\n\naside")
    assert "reasoning" not in ideal(requests, "drop")[1]["messages"][2]


def test_a_recording_is_told_to_another_engine(tmp_path: Path) -> None:
    turns = [Turn(("Bash", {"command": "ls"}), think="So."), Turn(text="Done.")]
    markers = ((marker(turns, key="0"), vllm_marker(turns)),)
    body = {
        "system": [{"type": "text", "text": "x-anthropic-billing-header: a;"}, {"type": "text", "text": "You are."}],
        "messages": [{"role": "user", "content": f"Go. {markers[0][0]}"}],
    }
    recording = Recording((Request(0, True, {"a": "b"}, json.dumps(body)),), markers)
    save(recording, tmp_path / "session.jsonl")
    assert load(tmp_path / "session.jsonl") == recording
    ((request, replayed),) = recording.bodies("Replay 7")
    told = json.loads(replayed)
    assert request.headers == {"a": "b"}
    assert told["system"][1]["text"] == "Replay 7. You are."
    assert told["max_tokens"] == 1
    assert "@@FAKE" not in replayed.decode()
    assert said(told).startswith("<think>\nSo.\n</think>\n\n<tool_call>")
    told["messages"] += [{"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}]
    assert said(told) == "Done."
    told["messages"] += [{"role": "assistant", "content": "x"}]
    assert said(told) == "Done."


def test_the_session_says_the_same_to_both_engines() -> None:
    prompts = scripts(Path("/src"))
    assert [len(turns) for _, turns in prompts] == [14, 11, 11, 3]
    for _, turns in prompts:
        found = script.find([{"role": "user", "content": marker(turns, key="k")}])
        assert found is not None
        assert len(found[0].steps) == len(turns)
        assert turns[-1].text
        assert not turns[-1].calls


def test_the_table(tmp_path: Path) -> None:
    requests = [Request(0, True, {}, ""), Request(0, False, {}, ""), Request(1, True, {}, "")]
    counted = [Counted(1000, 1000, 0), Counted(1200, 300, 5), Counted(900, 100, 0)]
    candidate = candidates()[0]
    best = Outcome(Candidate("ideal", "drop", "drop", candidate.open), requests, counted, counted)
    outcome = Outcome(candidate, requests, counted, counted[:1], (3100, 1700), [5], [])
    made = page(Recording(tuple(requests), ()), [outcome], {"drop": best})
    row = next(line for line in made.splitlines() if line.startswith("| qiao"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[2:] == [
        *("3,100", "1,400", "1,400", "**1,000**", "0.71", "300", "300"),
        *("1 (5 tokens)", "none", "800 of 900"),
    ]
