"""Pure decisions, each with its reason: Conversation in, Conversation (and notes of what was done) out.

* `prepare` runs them all in order; `blocks.documents_needed` tells beforehand whose text it will want.
* `history` mends what a client left broken, `prefix` keeps the prompt byte-stable, `blocks` finds words for what cannot
  be read, `tools` decides what is offered, `sampling` how to think and stop, `context` how long.
* `models` finds the upstream model that a client means by a name.
* `refusal` reads what an engine refused, `overflow` its numbers, `remedies` what mends it, `quirks` what it taught.

Nothing here talks to an engine: what a live server taught comes in as an argument.
"""

from __future__ import annotations

from qiao.policies.blocks import document_key, documents_needed
from qiao.policies.context import AppliedEdit
from qiao.policies.prepare import Prepared, Switches, prepare

__all__ = ["AppliedEdit", "Prepared", "Switches", "document_key", "documents_needed", "prepare"]
