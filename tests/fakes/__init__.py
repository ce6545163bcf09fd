"""Servers that stand in for real ones, over real sockets.

`engine` is an OpenAI-compatible inference server that behaves as vLLM does (its routes, byte shapes,
refusals), but says what a test tells it to say. `script` holds the words of such an order. Nothing here
imports `qiao`: a fake that shared code with the gateway could not contradict it.
"""
