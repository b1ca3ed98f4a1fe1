"""The vocabulary and arithmetic that every part of ThunderServe shares; no input or output."""
