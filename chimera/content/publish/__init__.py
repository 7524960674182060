"""From a draft to a post that is out: once, in time, within the caps, and never without its disclosure."""
