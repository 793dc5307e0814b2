"""Poses, and data folders as people have them."""
