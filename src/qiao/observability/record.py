"""One frozen record a request: what metrics, logs and the doctor read. No words of a prompt or an answer, no keys."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Iterator

import msgspec

from qiao.core.fault import Kind, Party


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to one request. Times in seconds, sizes in bytes; None: it did not come to that.

    * `at`: Unix time of the end. `route`: the route's short name (`messages`), never the path as sent.
    * `model`: as the client asked for it; `upstream_model`: the engine's name of what answered.
    * `status`: HTTP status; 499 when the client went away. `stop_reason`: Anthropic's word.
    * `input_tokens`: uncached and cached prompt together; `cached_tokens`: those of them that the engine knew.
    * `first_byte`: until the first byte of the answer left; `duration`: until the last one.
    * `upstream_seconds`: until the engine accepted the request, every healing included.
    * `repairs`: names of the mends on tool arguments, one entry a mend. `healed`: remedies that were needed.
    * `trimmed`: pieces of the conversation that were shortened to fit the window.
    * `notes`: how the request was changed to fit, one sentence each. `dropped`: fields that were ignored.
    * `joined`: the id of the request whose answer it shared.
    * `fault_*`: the rule that was broken, and by whom; `fault_message` is for `safe_message` only.
    * `client`: the program that asked (`claude-cli/2.1.330`). `session`: hash of the client's session.
    """

    request_id: str
    route: str
    status: int
    at: float
    duration: float
    model: str = ""
    upstream_model: str = ""
    stop_reason: str | None = None
    is_stream: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    first_byte: float | None = None
    upstream_seconds: float | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    repairs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    healed: tuple[str, ...] = ()
    trimmed: int | None = None
    dropped: tuple[str, ...] = ()
    joined: str = ""
    fault_kind: Kind | None = None
    fault_party: Party | None = None
    fault_message: str = ""
    upstream_status: int | None = None
    client: str = ""
    session: str = ""

    @property
    def safe_message(self) -> str:
        """The fault's message as far as it can hold no words of the client: else only the path it begins with."""
        if self.fault_kind is None:
            return ""
        if self.fault_party != "client" or self.upstream_status is not None:
            return self.fault_message
        path = re.match(
            r"prompt is too long: \d+ tokens > \d+ maximum\Z|[a-z_]+(?:\.[a-z_0-9]+)*(?=:)", self.fault_message
        )
        return path[0] if path else ""


class RecentRecords:
    """The last `capacity` records, oldest first. For the doctor, the dashboard and tests."""

    def __init__(self, capacity: int = 256) -> None:
        self._records: deque[RequestRecord] = deque(maxlen=capacity)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[RequestRecord]:
        return iter(tuple(self._records))

    def add(self, record: RequestRecord) -> None:
        self._records.append(record)


def client_name(user_agent: str | None) -> str:
    """The first product of a User-Agent header, `claude-cli/2.1.330`; empty where there is none."""
    match = re.match(r"[\w.+-]{1,40}(?:/[\w.+-]{1,30})?", (user_agent or "").strip())
    return match[0] if match else ""


def session_hash(session: str | None) -> str:
    """Eight hexadecimal digits that tell sessions apart without naming the user."""
    return hashlib.sha256(session.encode("utf-8", "replace")).hexdigest()[:8] if session else ""
