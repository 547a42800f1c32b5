"""Checks the laws on a user's own configuration, task and machine.

`verification` is the entry point. `laws` contains a check for each law, `runs` the small runs that
the checks compare, `bounds` the bounds on their differences, and `certificate` the result.
"""

from engine.verify.certificate import Certificate, Verdict
from engine.verify.verification import verify

__all__ = ["Certificate", "Verdict", "verify"]
