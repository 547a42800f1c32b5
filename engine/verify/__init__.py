"""Checks the laws of docs/concepts/laws.md on a user's configuration, task and machine."""

from engine.verify.certificate import Certificate, Verdict
from engine.verify.verification import verify

__all__ = ["Certificate", "Verdict", "verify"]
