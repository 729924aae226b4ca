"""What every package uses: errors, hashes, random generators, atomic files and printable text."""
