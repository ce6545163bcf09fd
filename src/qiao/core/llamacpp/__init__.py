"""llama.cpp's own completion protocol, for engines whose tool calls we write and read ourselves under a grammar."""
