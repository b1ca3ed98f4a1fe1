"""KV caches between groups: the sidecar, its codecs, and the engines' side of it."""
