"""One set of weights on one group of GPUs, and the phase it is in."""
