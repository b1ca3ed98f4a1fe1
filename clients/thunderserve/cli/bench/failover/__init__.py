"""`thunderserve bench failover`: what failures, flips and shifts cost those who are served."""
