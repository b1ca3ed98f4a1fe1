"""Effects that services share: configuration, RPC, the store, membership, process life."""
