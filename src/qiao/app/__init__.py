"""The only room with an HTTP server: the gateway's routes. Thin; decisions live in `policies`, words in `core`."""
