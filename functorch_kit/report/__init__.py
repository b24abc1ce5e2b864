"""What a run shows and leaves behind: console, metric records, plots, the HTML page.

Everything here takes plain data (numbers, dicts, paths) and knows no model and no training.
rich, matplotlib and tensorboardX load inside the functions that use them; where one of them is
missing, its part is skipped and one line says what brings it.
"""

from functorch_kit.report.comparison import show_comparison, write_comparison
from functorch_kit.report.console import RunConsole
from functorch_kit.report.environment import environment
from functorch_kit.report.layer_graph import layer_graph
from functorch_kit.report.page import write_page
from functorch_kit.report.plots import PlotsError, bars
from functorch_kit.report.profiles import show_profile, write_profile
from functorch_kit.report.records import MetricsLog, RecordError, read_metrics
from functorch_kit.report.rooflines import roofline_chart, show_roofline, write_roofline
from functorch_kit.report.sweep_page import write_sweep
from functorch_kit.report.tables import show_programs, show_summary
from functorch_kit.report.tensorboard import TensorBoardLog
from functorch_kit.report.views import write_views

__all__ = [
    "MetricsLog",
    "PlotsError",
    "RecordError",
    "RunConsole",
    "TensorBoardLog",
    "bars",
    "environment",
    "layer_graph",
    "read_metrics",
    "roofline_chart",
    "show_comparison",
    "show_profile",
    "show_programs",
    "show_roofline",
    "show_summary",
    "write_comparison",
    "write_page",
    "write_profile",
    "write_roofline",
    "write_sweep",
    "write_views",
]
