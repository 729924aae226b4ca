"""Labels made from descriptors, which a network learns to predict."""
