"""Checks the laws on a user's own configuration, task and machine; the entry point is `verify`."""

from engine.verify.certificate import Certificate, Verdict
from engine.verify.verification import verify

__all__ = ["Certificate", "Verdict", "verify"]
