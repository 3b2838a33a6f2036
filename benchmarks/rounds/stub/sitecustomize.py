"""Python runs this first in the processes of a way: a site's node counts what it sends, and ours train by the stub."""

import os
import sys

if any(name in part for part in sys.orig_argv for name in ("client.supernode", "flower-supernode")):
    from benchmarks.rounds.counting import count

    count()
elif any("multiprocessing.forkserver" in part for part in sys.orig_argv) and "MTSUNET_SITE" in os.environ:
    from benchmarks.rounds.learner import replace

    replace()
