"""What the evaluation script is made of."""
