"""The paper's experiments as commands, each with its table and its pictures."""
