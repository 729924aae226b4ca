"""Label models, a module each that defines LABEL_MODEL (earshot/labels/model.py)."""
