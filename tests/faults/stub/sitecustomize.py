"""Python runs this first in the processes of a kill test, whose PYTHONPATH this folder leads."""

import sys
import time

LONGEST_SLEEP = 0.5
"""Of a node between two looks for messages: Flower's 3 s are most of a cheap round."""

if any("flwr-clientapp" in part for part in sys.orig_argv):
    import halting_site  # noqa: F401
elif any("flwr-serverapp" in part for part in sys.orig_argv):
    import halting_loop  # noqa: F401
elif any("client.supernode" in part for part in sys.orig_argv):
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, LONGEST_SLEEP))
