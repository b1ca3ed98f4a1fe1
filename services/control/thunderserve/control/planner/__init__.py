"""Decides which GPUs form a replica, in which phase, and how requests flow. Pure: no effects."""
