"""Tools for exhibits: activations, receptive fields, galleries, media and tables."""
