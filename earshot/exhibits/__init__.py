"""The exhibits, one module each: tables of images and sounds that show what was learned."""
