"""What a sound is summarized as: windows of sound, their cochleagrams, and descriptors of them."""
