"""Checks that training is correct on a user's configuration, task and machine.

The package checks the eight laws of docs/concepts/laws.md, such as bitwise reproducibility, exact
resumption, and results that do not depend on the number of devices.
"""

from engine.verify.certificate import Certificate, Verdict
from engine.verify.verification import verify

__all__ = ["Certificate", "Verdict", "verify"]
