"""What the analyses of finished runs and the papers' tables write, a file each: every key with its meaning."""

from robcomp.report.results.analysis import Analysis, AttackedRun, Images
from robcomp.report.results.combine import CombinationRow, CombineResult
from robcomp.report.results.compare import ComparedAccuracy, ComparedRun, CompareResult, PairedDifference
from robcomp.report.results.curve import Curve, CurvePoint, CurveResult
from robcomp.report.results.histogram import HistogramResult, WeightCounts
from robcomp.report.results.losses import EpochLosses, LossesResult, RunLosses, StageEpochs
from robcomp.report.results.plan import Cost, PlannedEvaluation, PlannedRun, PlannedStage, PlanResult
from robcomp.report.results.reported import NamedRun, SizeShare
from robcomp.report.results.sensitivity import (
    Accuracies,
    LayerSensitivity,
    NetworkSensitivity,
    PrunedLayer,
    SensitivityResult,
)
from robcomp.report.results.table import JudgedClaim, PublishedCurve, TableRecord, TableResult, TableRun
from robcomp.report.results.transfer import TargetAccuracy, TransferCell, TransferMatrix, TransferResult

__all__ = [
    "Accuracies",
    "Analysis",
    "AttackedRun",
    "CombinationRow",
    "CombineResult",
    "CompareResult",
    "ComparedAccuracy",
    "ComparedRun",
    "Cost",
    "Curve",
    "CurvePoint",
    "CurveResult",
    "EpochLosses",
    "HistogramResult",
    "Images",
    "JudgedClaim",
    "LayerSensitivity",
    "LossesResult",
    "NamedRun",
    "NetworkSensitivity",
    "PairedDifference",
    "PlanResult",
    "PlannedEvaluation",
    "PlannedRun",
    "PlannedStage",
    "PrunedLayer",
    "PublishedCurve",
    "RunLosses",
    "SensitivityResult",
    "SizeShare",
    "StageEpochs",
    "TableRecord",
    "TableResult",
    "TableRun",
    "TargetAccuracy",
    "TransferCell",
    "TransferMatrix",
    "TransferResult",
    "WeightCounts",
]
