"""Kinds of data sets, one module each: each opens a `pipelines.Source`."""
