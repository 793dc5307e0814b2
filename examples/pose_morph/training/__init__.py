"""What the training script is made of."""
