"""A duel as a Ray job: `ray job submit --working-dir . -- python jobs/duel.py oracle:p=0.6 oracle:p=0.9`.

Takes the arguments and options of `af duel`; the exit code is its own. Inside a job the duel joins the job's cluster.
"""

from __future__ import annotations

import sys

from chimera.cli.arena.main import main

if __name__ == "__main__":
    main(["duel", *sys.argv[1:]])
