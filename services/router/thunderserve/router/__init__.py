"""The router: what clients talk to; it picks a pair of groups for every request."""
