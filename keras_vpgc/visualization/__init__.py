"""Pictures of results, and of what a model does inside."""

from keras_vpgc.visualization.codebook_view import CodebookView, CodeUsage
from keras_vpgc.visualization.inside import (
    cell_error,
    picture_of,
    plot_attention,
    plot_cell_error,
    plot_code_maps,
    plot_texture_prior,
    plot_traversal,
    plot_usage,
)
from keras_vpgc.visualization.sheets import contact_sheet, draw_landmarks, side_by_side

__all__ = [
    "CodeUsage",
    "CodebookView",
    "cell_error",
    "contact_sheet",
    "draw_landmarks",
    "picture_of",
    "plot_attention",
    "plot_cell_error",
    "plot_code_maps",
    "plot_texture_prior",
    "plot_traversal",
    "plot_usage",
    "side_by_side",
]
