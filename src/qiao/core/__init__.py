"""The pure heart of qiao: bytes and values in, bytes and values out.

Map of the room, in the order in which a request and its answer pass through it:

* `anthropic.request` and `openai.decode` read client bytes (`body`) into a `Conversation` (`conversation`), or raise a
  `Fault` (`fault`).
* `openai.request` (vLLM, SGLang, OpenAI-compatible) or `llamacpp.request` writes the Conversation for an engine.
* `sse` cuts the engine's bytes into server-sent events; `openai.stream` / `llamacpp.stream` read them as
  neutral events (`events`), facts in the past tense.
* `arguments` keeps tool arguments valid while they stream, `sequence` keeps one block open at a time,
  `reasoning` and `dialects` read what a model wrote as text, `repair` mends arguments and names each mend.
* `anthropic.stream` and `openai.encode_stream` write events as SSE; `fold` turns the same events into a whole answer
  (`anthropic.answer`, `openai.answer`), so that the two ways of answering cannot disagree. `anthropic.grammar` and
  `openai.grammar` are the strict judges of every stream.
* `exchange` ties one request and its answer together: receive(bytes) → bytes, eof(), fail().

Nothing here may import asyncio, sockets, clocks, the environment, files, logging or randomness: what needs one of
them takes it as an argument. `tests/test_architecture.py` holds this.
"""
