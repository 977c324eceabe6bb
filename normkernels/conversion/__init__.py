"""From a model of other norms to ours, in place, and back."""

from normkernels.conversion.convert import convert, revert
from normkernels.conversion.report import Report

__all__ = ["Report", "convert", "revert"]
