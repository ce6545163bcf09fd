"""What qiao remembers between runs: the key of the gateway, and which gateways run. Files today, SQL later."""
