"""The words of the report that a reader may not know: explained on hover and focus, and on a page of their own."""

import re
from collections.abc import Mapping

FILE = "glossary.html"
# By word or group of words, each explained in one or two sentences. A longer word comes before one that it contains.
TERMS: Mapping[str, str] = {
    "wrong sound": "The same network, trained in the same way, but each clip has the sound of another video. What a "
    "score has above this control came from sound that belongs to the image.",
    "random weights": "The same network, not trained.",
    "color histogram": "A linear classifier on the colors of an image alone.",
    "mismatched audio": "The trained network with the sound of another image. Its map shows what stands out without "
    "the sound.",
    "random ranking": "All clips in random order.",
    "full image": "A map that is the same everywhere: its peak lies in a box as often as a random point does.",
    "center": "A map that is strongest in the middle of the image and falls evenly to its corners. It needs no "
    "network and no sound.",
    "majority": "The accuracy of always predicting the most frequent label.",
    "chance": "The score of predictions that know nothing about the item.",
    "spectrum": "A descriptor of a sound by its mean spectrum alone.",
    "descriptor": "Numbers that describe a sound, computed and not learned.",
    "supervised": "The same network trained on annotations: an upper reference, not a control.",
    "cIoU": "Consensus intersection over union: how well the area that the map marks agrees with the boxes of the "
    "annotators. The score is the share of images in which it is .5 or more. “median” marks the half of the image "
    "above the map's median; “half”, what is above half of its range.",
    "AUC": "The area under the share of images whose cIoU reaches a threshold, over all thresholds from 0 to 1.",
    "peak": "The share of images in which the strongest point of the map lies inside a box of the sound's source.",
    "mAP": "Mean average precision: for each class, how far up the images of the class stand if images are sorted by "
    "its score; then the mean over classes. 1 is perfect.",
    "11pt": "Average precision as VOC had it until 2009: read at 11 levels of recall.",
    "nDCG": "Normalized discounted cumulative gain: how relevant the first results are, the first counting most. 1 is "
    "the best order possible.",
    "NMI": "Normalized mutual information: how well clusters agree with annotated classes, from 0 to 1. Few clips "
    "give more than 0 by chance.",
    "4 of 5": "A unit prefers a class if at least 4 of the 5 clips that activate it most have that class.",
    "3 of 5": "A unit prefers a class if at least 3 of the 5 clips that activate it most have that class.",
    "by images": "Units selective by their top annotated images: these images come from the benchmark, not from clips.",
    "by boxes": "Units that cover the boxes of a class with an overlap (IoU) above the exhibit's threshold.",
    "for position": "Units whose activation depends on where in the image something is, at least half of its variance.",
    "IoU": "Intersection over union: the area that two regions share, divided by the area that they cover together.",
    "selective": "A unit is selective if at least a given share of the frames that activate it most show one object.",
    "purity": "The share of items that have the most frequent annotation of their group.",
    "distance": "How far the sound of a moment is from the centroid of its cluster, in the units of the scaled "
    "descriptor: 0 is the centroid itself.",
    "gain": "How relevant a result is to its query: 1 is the same class, less is farther away: max(C − d, 0) / C, of "
    "the distance d of two classes in the ontology and the largest distance C.",
    "max5": "The last convolutional layer of the network, max-pooled to few positions.",
    "pool5": "The last pooling layer, before the fully connected layers.",
    "conv5": "The last convolutional layer.",
    "fc6": "The first fully connected layer.",
    "fc7": "The second fully connected layer, the last before the output.",
    "head": "Only the new fully connected layers are trained; all others keep their weights.",
    "all proposals": "All proposed regions with the same score: what they give without a network.",
    "all": "All layers are trained further, the new fully connected ones and those that sound has trained.",
    "moment": "A frame and the sound around it.",
    "cluster": "A group of moments with similar sounds; its number is its label, from 0.",
    "verdict": "What the tests say of a score: learned, if it is above every control, the wrong sound among them; else "
    "to which controls it stands worst.",
    "not significantly above": "Higher than a control, but the test cannot tell the difference from chance.",
    "no better": "Equal to a control or lower, but the test cannot tell the difference from chance.",
    "paired test": "Student's paired t-test over the items of a benchmark, such as images, queries or units of one "
    "network, two-sided at the level of .05. Scores that are no means of items (mAP, NMI) are computed anew on 1,000 "
    "random draws of the items (test images, or clips for NMI), the same for both networks: the bootstrap. Tests are "
    "not corrected for their number: by chance alone, one comparison in 40 comes out above and one in 40 below.",
    "95 %": "The interval that holds the true value in 95 of 100 cases, over other test items but for the same "
    "trained network.",
    "±": "The standard error over the test items; about two of it to each side are the 95 % interval.",
    "clips_hash": "A fingerprint of the list of training clips.",
    "items_hash": "A fingerprint of the list of test items.",
}
PATTERN = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, TERMS))})(?!\w)", re.IGNORECASE)
_BY_CASE = {word.casefold(): word for word in TERMS}


def explained(text: str) -> tuple[str, str] | None:
    """The first word of the glossary in a text, and its explanation; None if the text has none."""
    match = PATTERN.search(text)
    word = _BY_CASE[match[0].casefold()] if match else ""
    return (word, TERMS[word]) if word else None


def anchor(word: str) -> str:
    """The identifier of a word on the page of the glossary."""
    return re.sub(r"\W+", "-", word.casefold())
