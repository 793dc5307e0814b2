"""Applications built on `gpa_nd`, each runnable from the repository root."""
