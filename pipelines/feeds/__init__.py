"""Feeds: from decoded or stored examples to the batches of each replica and step."""
