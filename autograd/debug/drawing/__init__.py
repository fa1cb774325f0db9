"""A graph as a picture: boxes (what to show), layout (where), svg (the file)."""
