"""The exhibits, a module each: what was learned, as tables of images and sounds that a report shows."""
