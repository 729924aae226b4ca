"""What finished runs say: their parameters, their scores, and the published tables beside them."""
