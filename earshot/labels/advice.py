"""Whether a corpus is large enough for its labels."""

# Of 345 real source videos, 30 clusters gave held-out accuracy at the majority's, and 5 clusters accuracy above it; of
# 640 rendered ones, 30 clusters gave accuracy above it. Between them, a rule of thumb.
VIDEOS_PER_LABEL = 15


def advice(videos: int, labels: int, *, distance_filter: bool) -> str:
    """What to try if too few source videos are kept for training on this many labels; empty if they are enough."""
    if videos >= labels * VIDEOS_PER_LABEL:
        return ""
    fewer = videos // VIDEOS_PER_LABEL
    remedies = ["give more source videos"]
    remedies += [f"set clusters={fewer} or fewer"] if fewer > 1 else []
    remedies += ["set label.distance_filter=false"] if distance_filter else []
    few = f"{videos:,} source videos are few for {labels} labels ({videos / labels:.1f} each"
    return (
        f"{few}, expected {VIDEOS_PER_LABEL} or more); a network may not exceed the majority: {' or '.join(remedies)}"
    )
