"""The decode worker: produces tokens from a received KV cache, or colocated from the prompt."""
