"""The OpenAI chat-completions protocol as vLLM, SGLang, llama.cpp and others speak it."""
