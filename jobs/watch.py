"""A watch as a Ray job: `ray job submit --working-dir . -- python jobs/watch.py --ray --for 60`.

Takes the arguments and options of `chimera watch`; the exit code is its own. Inside a job it joins the job's cluster:
`--ray` watches that cluster, and `--shards` detects in actors on it.
"""

from __future__ import annotations

import sys

from chimera.cli.main import main

if __name__ == "__main__":
    main(["watch", *sys.argv[1:]])
