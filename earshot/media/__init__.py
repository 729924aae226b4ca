"""Clips and scenes: finding clips, decoding them to frames and sound, and the table of scenes."""
