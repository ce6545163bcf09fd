"""Tool calls that a model writes as text. The dialects come with the no-restart mode; this is their room."""
