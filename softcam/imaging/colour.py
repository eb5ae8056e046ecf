"""The colours of JFIF, which all pictures and videos have: sRGB with the matrix of BT.601, full range.

The numbers are the code points of ITU-T H.273, which H.264, MP4 and FFmpeg share.
"""

from typing import Final

COLOUR_PRIMARIES: Final = 1
COLOUR_TRANSFER: Final = 13
COLOUR_MATRIX: Final = 6
