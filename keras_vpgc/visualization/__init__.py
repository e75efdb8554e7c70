"""Pictures of results."""

from keras_vpgc.visualization.sheets import contact_sheet, draw_landmarks, side_by_side

__all__ = ["contact_sheet", "draw_landmarks", "side_by_side"]
