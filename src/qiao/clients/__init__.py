"""Settings and launch of the programs people use with the gateway: Claude Code, editors, SDKs, shells."""
