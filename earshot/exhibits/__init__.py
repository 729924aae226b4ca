"""Exhibits: what was learned, as tables of pictures and sounds that a report shows."""
