"""Watches what arrives, and moves phases and routes when that has changed for good."""
