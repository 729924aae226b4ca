"""Sound descriptors: the 502-d texture, MFCC and the spectrum."""
