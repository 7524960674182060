"""`ray start` of a worker node on loopback: Ray rewrites 127.0.0.1 to the host's address, and then listens everywhere.

It has no switch for this, so the rewrite is taken out before Ray's command line runs.
"""

from __future__ import annotations

import os

import ray._private.services
from ray.scripts.scripts import main

if __name__ == "__main__":
    ray._private.services.get_node_ip_address = lambda *_args, **_options: "127.0.0.1"
    # For the node's processes, and not before the import: `ray start` itself refuses to join with it.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    main()
