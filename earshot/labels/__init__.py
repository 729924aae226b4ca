"""What a network predicts: labels made of descriptors."""
