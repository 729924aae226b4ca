"""What every room stands on: errors, hashes, random generators, whole files and printable text."""
