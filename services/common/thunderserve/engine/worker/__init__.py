"""What a prefill and a decode worker share: configuration, the worker's service, its life."""
