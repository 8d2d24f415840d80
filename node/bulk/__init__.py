"""Bulk: model weights between nodes over connections and in a process of their own, beside links and jobs."""
