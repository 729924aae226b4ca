"""The commands beside the stages: recipes, tables, comparisons, scores."""
