"""Programs that are compiled once and tell the truth: cost, time, memory, and modes compared."""

from functorch_kit.program.cache import use_cache
from functorch_kit.program.comparison import ComparisonError, compare
from functorch_kit.program.comparison_table import Comparison, VariantResult
from functorch_kit.program.compile_report import ProgramReport
from functorch_kit.program.cost import flops, flops_by_scope
from functorch_kit.program.executable import Program, compile
from functorch_kit.program.layer_summary import Summary, SummaryRow, summary
from functorch_kit.program.mismatch import ProgramMismatch
from functorch_kit.program.profile_table import Profile, ProfileRecord
from functorch_kit.program.profiling import ProfileError, profile
from functorch_kit.program.timing import Timing, matmul_ceiling, measure

__all__ = [
    "Comparison",
    "ComparisonError",
    "Profile",
    "ProfileError",
    "ProfileRecord",
    "Program",
    "ProgramMismatch",
    "ProgramReport",
    "Summary",
    "SummaryRow",
    "Timing",
    "VariantResult",
    "compare",
    "compile",
    "flops",
    "flops_by_scope",
    "matmul_ceiling",
    "measure",
    "profile",
    "summary",
    "use_cache",
]
