"""The pins that a cluster shares: kept on every node, told over links, held by those that are chosen."""
