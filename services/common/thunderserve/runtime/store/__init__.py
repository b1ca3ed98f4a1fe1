"""A small, revisioned key-value store: etcd, or its twin in memory."""
