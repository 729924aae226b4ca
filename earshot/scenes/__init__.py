"""The table of scenes: its schema, its one reader, its annotations and its duplicates."""
