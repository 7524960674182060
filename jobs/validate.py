"""A validator as a Ray job: `ray job submit --working-dir . -- python jobs/validate.py examples/arena/validator.yaml`.

Takes the arguments and options of `af validate`; the exit code is its own. Inside a job it joins the job's cluster.
"""

from __future__ import annotations

import sys

from chimera.cli.arena.main import main

if __name__ == "__main__":
    main(["validate", *sys.argv[1:]])
