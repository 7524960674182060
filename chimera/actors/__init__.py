"""Every Ray actor of Chimera, one file a kind. Ray is imported in this package and nowhere else.

The classes are plain: `cluster` wraps them into actors, so a test can make one and call it. Calls go down the tree
(coordinator -> manager -> cell); what comes back is collected by long polls (`outbox`), which also notice a death.
"""
