"""The prefill worker: computes prompts and sends their KV cache."""
