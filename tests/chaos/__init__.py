"""Fault injection: killed and resumed runs must be bitwise equal to uninterrupted ones."""
