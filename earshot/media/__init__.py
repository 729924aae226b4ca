"""Finding clips in folders and tar shards, and decoding them to frames and sound."""
