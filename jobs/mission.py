"""A mission as a Ray job: `ray job submit --working-dir . -- python jobs/mission.py --mission FILE.yaml`.

Takes the options of `chimera run`; the exit code is its own. Inside a job the swarm joins the job's cluster.
"""

from __future__ import annotations

import sys

from chimera.cli.main import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
