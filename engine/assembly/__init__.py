"""Assembly of a run from its options: devices, data, model, optimizer, state and loop."""
