"""The commands beside the stages, such as recipe, tables, compare and scores."""
