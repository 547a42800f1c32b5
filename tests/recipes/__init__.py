"""Tests of the flagfiles in recipes/."""
