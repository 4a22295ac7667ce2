"""Rasters of any size into road maps: predicted in blocks, traced in cells, joined seamlessly.

A scene's work lies in files that are complete or not there: `blocks/` holds what the model says,
`lines/` what was traced from it. So any process may go on with any part, now or after a crash.
"""
