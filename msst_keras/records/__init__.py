"""The record contract: what a record holds, shards, the manifest beside them, and what can be wrong with them."""
