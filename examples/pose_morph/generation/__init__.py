"""What the generate command is made of: people, poses, and the pictures that come out."""
