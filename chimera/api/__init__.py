"""The HTTP and WebSocket API of a running Chimera: every route asks for a permission, and every refusal says why."""
