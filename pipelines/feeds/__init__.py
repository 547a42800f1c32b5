"""Feeds, in-memory and streaming, which supply the batches of each replica and step."""
