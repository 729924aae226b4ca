"""Windows of sound, their cochleagrams, and descriptors that summarize them."""
