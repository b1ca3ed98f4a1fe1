"""How other systems would use the same GPUs, each by the idea of its source."""
