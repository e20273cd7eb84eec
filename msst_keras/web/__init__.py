"""What the local pages share: a server that answers its own pages alone, and their common style."""
