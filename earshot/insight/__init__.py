"""What was learned, made visible: tables of scores beside the published ones, and the report."""
