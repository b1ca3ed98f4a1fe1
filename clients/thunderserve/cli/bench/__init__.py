"""`thunderserve bench`: what a part of the system reaches, as ratios beside something known."""
