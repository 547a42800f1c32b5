"""A run as it happens: what comes when, what it means for what comes next, and what it says."""
