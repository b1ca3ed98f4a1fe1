"""`thunderctl`: look at a running fleet and change it."""
