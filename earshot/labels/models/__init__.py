"""Label models; each module defines a LABEL_MODEL (earshot/labels/model.py)."""
