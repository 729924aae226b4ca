"""The probe `svm`: linear SVMs with the squared hinge loss, one-vs-rest (Owens 2016, section 4.2)."""

from functools import partial

from earshot.evaluation.linear import SQUARED_HINGE, fit
from earshot.evaluation.probe import Probe

GRID = tuple(0.5**k for k in range(4, 20))  # Owens 2016, section 4.2

PROBE = Probe(title="linear SVM", symbol="C", grid=GRID, fit=partial(fit, loss=SQUARED_HINGE))
