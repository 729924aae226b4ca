"""What exhibits are made with: activations, receptive fields, galleries, media and tables."""
