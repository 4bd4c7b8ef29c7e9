"""The page of a run, its figures, and the folder that holds them."""
