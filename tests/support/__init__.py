"""What the integration tests stand on: processes, a listening relay, drivers of the official clients.

* `background`: an event loop in a thread, for servers that outlive one test.
* `tap`: a byte relay between a client and the gateway that keeps every exchange.
* `gateway`: the gateway as a process.
* `sdk`: the official SDKs as processes that do what they are told over pipes.
* `claude_code`: the real Claude Code, headless, in an empty home.
"""
