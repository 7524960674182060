"""A training as a Ray job: `ray job submit --working-dir . -- python jobs/train_gan.py wine --out /data/wine --ray`.

Takes the arguments and options of `chimera sandbox train`; the exit code is its own. Inside a job `--ray` joins the
job's cluster: the trainer is an actor on the head node, and starts again where it was saved whenever it dies. The
folder is on that machine, and outlives the job: the same job again goes on.
"""

from __future__ import annotations

import sys

from chimera.cli.main import main

if __name__ == "__main__":
    main(["sandbox", "train", *sys.argv[1:]])
