"""From what a request left in its `Context` to the one record that metrics and logs read."""

from __future__ import annotations

import time
from collections.abc import Mapping

from qiao.app.gateway import Context, now
from qiao.core.anthropic.answer import stop_fields
from qiao.observability.record import RequestRecord, client_name, session_hash


def record_of(context: Context, headers: Mapping[str, str]) -> RequestRecord:
    """The record of a request that is over."""
    usage, fault = context.usage, context.fault
    return RequestRecord(
        request_id=context.request_id,
        route=context.route,
        status=context.status,
        at=time.time(),
        duration=now() - context.started,
        model=context.model,
        upstream_model=context.upstream_model,
        stop_reason=stop_fields(context.finish)["stop_reason"] if context.finish else None,
        is_stream=context.is_stream,
        input_tokens=usage.prompt if usage else None,
        output_tokens=usage.completion if usage else None,
        cached_tokens=usage.cached if usage else None,
        first_byte=None if context.first_byte is None else context.first_byte - context.started,
        upstream_seconds=context.upstream_seconds,
        bytes_in=context.bytes_in,
        bytes_out=context.bytes_out,
        repairs=context.repairs,
        notes=context.notes,
        healed=context.healed,
        trimmed=context.trimmed or None,
        dropped=context.dropped,
        joined=context.joined,
        fault_kind=fault.kind if fault else None,
        fault_party=fault.party if fault else None,
        fault_message=fault.message if fault else "",
        upstream_status=fault.upstream_status if fault else None,
        client=client_name(headers.get("User-Agent")),
        session=session_hash(context.session),
    )
