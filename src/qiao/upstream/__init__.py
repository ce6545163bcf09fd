"""The only room with an HTTP client: engines as the gateway sees them."""
