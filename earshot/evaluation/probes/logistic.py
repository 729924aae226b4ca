"""The probe `logistic`: logistic regression with an L2 penalty, one-vs-rest.

The evaluations of learned audio (Turian 2022, HEAR) and images (Caron 2021, DINO) train a linear layer by
cross-entropy. Here the strength of the penalty is selected on validation rows, and each class has its own regression,
because an image of VOC has several classes.
"""

from functools import partial

from earshot.evaluation.linear import LOGISTIC, fit
from earshot.evaluation.probe import Probe

# Eight times the SVM's values of C: near the boundary the squared hinge bends eight times as much.
GRID = tuple(8 * 0.5**k for k in range(4, 20))

PROBE = Probe(title="logistic regression", symbol="C", grid=GRID, fit=partial(fit, loss=LOGISTIC))
