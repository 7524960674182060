"""What others publish, read from bytes: RSS and Atom, Bluesky, Mastodon, files. Nothing here reaches the network."""
