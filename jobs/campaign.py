"""A campaign as a Ray job: `ray job submit --working-dir . -- python jobs/campaign.py --campaign FILE.yaml`.

Takes the options of `chimera content run`; the exit code is its own. The items are made by agents of a swarm, which
joins the job's cluster. What is kept lies in CHIMERA_HOME of the machine that the job runs on, and outlives the job.
"""

from __future__ import annotations

import sys

from chimera.cli.main import main

if __name__ == "__main__":
    main(["content", "run", "--ray", *sys.argv[1:]])
