"""Stored examples: records and their index, decoding, the cache, reading by index, digests."""
