"""The Anthropic Messages protocol: wire shapes, request, whole answer, stream, strict grammar, errors."""
