"""`thunderserve up --emulated`: a whole fleet in one process, on engines that compute nothing."""
