"""Looks at a run before it starts: data, first batch, parameters, cost, and an eager first step."""
