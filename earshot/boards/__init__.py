"""Adapters to boards that compare embeddings of others: one module a board, with the names that the board expects."""
