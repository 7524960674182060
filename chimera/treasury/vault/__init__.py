"""The process that holds the CFO's key and the ledger, outside Ray: workers ask it over Unix sockets, a socket a role.

A worker that was taken over can ask it for anything, and gets what anybody would: the vault reads each request from the
ledger, judges it by the ledger's rows, and signs only that. The key does not leave it, and no other process looks in.
"""
