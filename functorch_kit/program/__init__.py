"""Programs that are compiled once and tell the truth: cost, time, memory, and modes compared."""

from functorch_kit.program.cache import use_cache
from functorch_kit.program.case import Case
from functorch_kit.program.comparison import compare
from functorch_kit.program.comparison_table import Comparison, VariantResult
from functorch_kit.program.compile_report import ProgramReport
from functorch_kit.program.compiler_options import measured_options
from functorch_kit.program.contract import ProgramRefused, check_carry, tracing
from functorch_kit.program.cost import flops, flops_by_scope
from functorch_kit.program.device_ceilings import Ceilings, ceilings
from functorch_kit.program.device_memory import MemoryUse, memory_use
from functorch_kit.program.device_peaks import arithmetic_of, peak_flops
from functorch_kit.program.executable import Program, compile
from functorch_kit.program.finding import Finding
from functorch_kit.program.layer_outputs import first_divergence, layer_outputs
from functorch_kit.program.layer_summary import Summary, SummaryRow, summary
from functorch_kit.program.libraries import library_calls
from functorch_kit.program.memory_traffic import bytes_moved
from functorch_kit.program.mismatch import ProgramMismatch
from functorch_kit.program.nonfinite import first_nonfinite
from functorch_kit.program.probe import by_iteration, probed
from functorch_kit.program.profile_table import Profile, ProfileRecord
from functorch_kit.program.profiling import ProfileError, profile
from functorch_kit.program.roofs import (
    Roofline,
    RooflineError,
    Utilization,
    roofline,
    utilization,
)
from functorch_kit.program.switches import ComparisonError
from functorch_kit.program.timing import Timing, matmul_ceiling, measure

__all__ = [
    "Case",
    "Ceilings",
    "Comparison",
    "ComparisonError",
    "Finding",
    "MemoryUse",
    "Profile",
    "ProfileError",
    "ProfileRecord",
    "Program",
    "ProgramMismatch",
    "ProgramRefused",
    "ProgramReport",
    "Roofline",
    "RooflineError",
    "Summary",
    "SummaryRow",
    "Timing",
    "Utilization",
    "VariantResult",
    "arithmetic_of",
    "by_iteration",
    "bytes_moved",
    "ceilings",
    "check_carry",
    "compare",
    "compile",
    "first_divergence",
    "first_nonfinite",
    "flops",
    "flops_by_scope",
    "layer_outputs",
    "library_calls",
    "matmul_ceiling",
    "measure",
    "measured_options",
    "memory_use",
    "peak_flops",
    "probed",
    "profile",
    "roofline",
    "summary",
    "tracing",
    "use_cache",
    "utilization",
]
