"""qiao (桥, "bridge"): Anthropic clients on open models."""

__version__ = "0.1.0"
