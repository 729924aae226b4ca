"""A corpus too small for its labels is named, with what to try."""

from earshot.labels.advice import advice


def test_345_videos_are_few_for_30_clusters_and_enough_for_5():
    actual = advice(345, 30, distance_filter=True)
    assert actual.startswith("345 source videos are few for 30 labels (11.5 each, expected 15 or more)")
    remedies = "give more source videos or set clusters=23 or fewer or set label.distance_filter=false"
    assert actual.endswith(f": {remedies}")
    assert advice(345, 5, distance_filter=False) == advice(450, 30, distance_filter=True) == ""


def test_a_corpus_too_small_for_any_clusters_needs_videos():
    assert advice(20, 4, distance_filter=False).endswith("majority: give more source videos")
