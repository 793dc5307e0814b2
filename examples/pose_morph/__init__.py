"""The reference application: the pose-morphing model of the paper, and its training script."""
