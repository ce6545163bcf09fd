"""Pure decisions, each with its reason: Conversation in, Conversation (and notes of what was done) out."""
