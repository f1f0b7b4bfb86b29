"""Evaluate predictions and audit tables. Input: references and predictions. Output: metrics with intervals, comparisons, audits."""

import sys
import types


class _Package(types.ModuleType):
    """The package itself can be called: `ctlab.judge(predictions, truth)`."""

    def __call__(self, predictions, truth, **options):
        from ctlab.judge.evaluate import EvaluationOptions, judge

        return judge(predictions, truth, EvaluationOptions(**options))


sys.modules[__name__].__class__ = _Package
