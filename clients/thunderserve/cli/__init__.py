"""`thunderserve`: run services, or a whole fleet on this machine."""
