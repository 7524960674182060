"""Many sandboxes train one generator: Flower's strategies over the swarm's own calls, or over a SuperLink."""
