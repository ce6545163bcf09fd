"""Connections for the tests of this folder."""

from __future__ import annotations

from qiao.clients.connection import Connection
from qiao.options import Secret


def connection(
    window: int | None = 131072,
    output_limit: int | None = 32000,
    url: str = "http://127.0.0.1:4000",
    key: str | None = "sk-k",
    model: str = "qwen3-235b",
) -> Connection:
    return Connection(
        url=url,
        key=Secret(key) if key else None,
        model=model,
        small="small-model",
        subagent="sub-model",
        window=window,
        output_limit=output_limit,
    )
