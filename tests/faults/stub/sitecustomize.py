"""Python runs this first in the processes of a kill test, whose PYTHONPATH this folder leads."""

import os
import sys
import time

LONGEST_SLEEP = 0.5
"""Of a node between two looks for messages: Flower's 3 s are most of a cheap round."""

if "CLOCKS" in os.environ:
    import jumping_clock  # noqa: F401
if "READ_ONLY" in os.environ:
    import no_override  # noqa: F401

if any("multiprocessing.forkserver" in part for part in sys.orig_argv):
    import halting_site  # noqa: F401

    if "HOSTILE" in os.environ:
        import hostile_site  # noqa: F401
elif any("flwr-serverapp" in part for part in sys.orig_argv):
    import halting_loop  # noqa: F401
elif any("client.supernode" in part for part in sys.orig_argv):
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, LONGEST_SLEEP))
    if f"/{os.environ.get('ODD')}/" in " ".join(sys.orig_argv):
        import odd_node  # noqa: F401
