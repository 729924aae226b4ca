"""What was learned, made visible: the table of scores."""
