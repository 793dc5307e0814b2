"""Rendered people: articulated bodies, clothes defined on the rest pose, and an orthographic camera."""
