"""What people would pick instead, each written as its own community would write it."""
