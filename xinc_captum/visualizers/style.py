"""Colours, lengths in inches, and the marks of verdicts that all figures share."""

SIGNED = "RdBu_r"  # red adds, white is zero, blue removes
HEAT = "inferno"  # brightness grows monotonically, so that colour-blind readers can follow it
DIM = 0.45  # brightness of the photo under a heat map
INK, QUIET = "#1d1d1f", "#6e6e73"
BLUE, ORANGE = "#1f5fa8", "#c4561a"
CONTROL, PALE_CONTROL, EDGE = "#9a9aa2", "#b5b5bd", "#d8d8de"  # greys of controls and of frames
LINE_COLOURS = (BLUE, ORANGE, "#3a7d44", "#8a4a9e", "#6b6b6b", "#b08900")
VERDICTS = {"holds": ("✓", "#1a6e33"), "weak": ("≈", "#8a5a00"), "fails": ("✗", "#a8201a")}

PAGE, WIDE_PAGE = 9.0, 11.0  # 900 pixels at 100 dots per inch, and the width for a dozen video frames
MARGIN = 0.14
GRID_GAP, IMAGE_GAP = 0.06, 0.07  # between the cells of Sheet.grid, and between images elsewhere
LEADING = 1.32  # distance of lines, in units of the font size
