"""The control plane: who holds the model, in which phase, who feeds whom; leases and flips."""
