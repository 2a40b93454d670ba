"""What a person sees of a run: plots, and a report in HTML. The plots need matplotlib (pip install 'relpt[plots]')."""

from relpt.report.html import figure_png, write_report
from relpt.report.plots import pca, plot_ablation, plot_fewshot, plot_history, plot_map

__all__ = ["figure_png", "pca", "plot_ablation", "plot_fewshot", "plot_history", "plot_map", "write_report"]
