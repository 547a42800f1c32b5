"""The laws, checked on a user's own configuration, task and machine.

`verification` has the whole of it, `laws` a check for each law, `bench` the small runs that they
compare, `bounds` how far apart those may be, `certificate` what comes of it.
"""

from engine.verify.certificate import Certificate, Verdict
from engine.verify.verification import verify

__all__ = ["Certificate", "Verdict", "verify"]
