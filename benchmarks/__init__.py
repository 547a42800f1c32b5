"""How fast Tapeline is beside a bare loop and beside what people would pick instead."""
