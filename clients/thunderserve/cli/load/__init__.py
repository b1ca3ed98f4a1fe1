"""`thunderserve load`: requests as they arrive in a workload, and what came of each."""
