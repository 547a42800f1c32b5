"""Fault injection: killed and resumed runs must equal uninterrupted ones to the bit."""
