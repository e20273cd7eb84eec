"""What the local pages share: a server that answers only its own pages, and their common style."""
