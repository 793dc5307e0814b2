"""Steps from pictures as people have them to a folder that training reads; one step per file."""
