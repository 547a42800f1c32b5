"""Checks that training is correct on a user's configuration, task and machine.

The checks are of the eight laws in docs/concepts/laws.md, such as bitwise reproducibility, exact
resumption, and results that do not depend on the number of devices.
"""

from engine.verify.certificate import Certificate, Verdict
from engine.verify.verification import verify

__all__ = ["Certificate", "Verdict", "verify"]
