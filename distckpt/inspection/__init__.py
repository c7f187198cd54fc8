"""Looks at a directory without changing it: lists, differences, exports, timelines."""
